"""Every hyper-parameter of the package: frozen, keyword-only, each default in exactly one place.

Unknown keys and unusable values are errors where the record is made. No torch here: the command
line reads this file alone to print its help.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import yaml

from foundry3d.errors import InputError

T = TypeVar("T")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def _positive(record: Any, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        _require(value > 0, f"{name} must be positive, got {value}")


def _fraction(record: Any, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        _require(0 <= value < 1, f"{name} must lie in [0, 1), got {value}")


def to_dict(record: Any) -> dict[str, Any]:
    """A configuration record as plain nested dictionaries (tuples become lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return plain(asdict(record))


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """The record of type `kind` that `to_dict` wrote.

    Raises:
        InputError: an unknown key, a missing one, or a value the record refuses.
    """
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    _require(not unknown, f"unknown key {unknown} for {kind.__name__}; known are {sorted(known)}")
    made: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(hints[name]) and isinstance(value, dict):
            value = from_dict(hints[name], value)
        made[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**made)
    except TypeError as error:
        raise InputError(f"{kind.__name__} cannot be made from {sorted(values)}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A point-cloud transformer: tokenizer, position, encoder (method.md: ViT-S by default).

    Attributes:
        groups: c, tokens of a cloud.
        group_size: k, points of a token.
        radius: divides group coordinates when given.
        point_widths: the three hidden widths of the tokenizer.
        point_bias: biases on the tokenizer convolutions that BatchNorm follows.
        tokenizer_dim: width the tokenizer works to before a Linear brings its tokens to
            token_dim (Point-BERT); None = no such Linear.
        token_dim: width of tokens and positions; None = dim. When it differs from dim a Linear
            each brings tokens and positions to dim (ViT-T students of wider teachers).
        position_dim: hidden width of the position MLP.
        class_token: a learned token and its position join the encoder's input; its own feature
            is not returned (Point-BERT). Backbones only: a student has none.
        dim: d, encoder width.
        depth: number of blocks.
        heads: attention heads, a divisor of dim.
        mlp_ratio: hidden width of the block MLPs over dim.
        qkv_bias: bias on the attention input projection.
        dropout: after attention and MLP, training only.
        attention_dropout: on attention weights, training only.
        drop_path: stochastic depth of the last block, rising linearly from 0.
    """

    groups: int = 64
    group_size: int = 32
    radius: float | None = None
    point_widths: tuple[int, int, int] = (128, 256, 512)
    point_bias: bool = False
    tokenizer_dim: int | None = None
    token_dim: int | None = None
    position_dim: int = 128
    class_token: bool = False
    dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, "groups", "group_size", "position_dim", "dim", "depth", "heads")
        _positive(self, "mlp_ratio")
        _fraction(self, "dropout", "attention_dropout", "drop_path")
        _require(
            len(self.point_widths) == 3 and min(self.point_widths) > 0,
            f"point_widths are three positive widths, got {self.point_widths}",
        )
        for name in ("tokenizer_dim", "token_dim"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be positive or null, got {value}")
        _require(
            self.dim % self.heads == 0, f"heads must divide dim, got {self.heads} and {self.dim}"
        )


PRESETS: dict[str, dict[str, Any]] = {
    "vit_t": {"dim": 192, "heads": 3},
    "vit_s": {"dim": 384, "heads": 6},
    "vit_b": {"dim": 768, "heads": 12},
}


def preset(name: str, **changes: Any) -> BackboneConfig:
    """The named size (`vit_t`, `vit_s`, `vit_b`) with fields of `BackboneConfig` changed.

    Raises:
        InputError: unknown name or field.
    """
    _require(name in PRESETS, f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    return from_dict(BackboneConfig, PRESETS[name] | changes)


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """A student: a backbone with supertokens around its encoder (DSO and CAU).

    Attributes:
        backbone: tokenizer, position, encoder; `token_dim` is the teacher's width.
        supertokens: s, learned supertokens.
        output_dim: width of the returned features; None = backbone.dim.
        soft_assignment: softmax over supertokens instead of one each (ablation).
        dso_bias: bias on the DSO's W_Q, W_K, W_V (ablation).
        cau_norm: LayerNorm on the CAU output (ablation).
        supertoken_positions: learned positions added to the supertokens (ablation, "use
            supertoken P" of Table 15).
        temperature: of the Gumbel-Softmax in training.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    supertokens: int = 16
    output_dim: int | None = None
    soft_assignment: bool = False
    dso_bias: bool = False
    cau_norm: bool = False
    supertoken_positions: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "temperature")
        _require(not self.backbone.class_token, "a student has no class token, got class_token")
        _require(
            1 <= self.supertokens <= self.backbone.groups,
            f"supertokens must lie in 1..{self.backbone.groups} (the tokens), "
            f"got {self.supertokens}",
        )


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """Masked reconstruction (Point-MAE).

    Attributes:
        mask_ratio: share of the groups that is hidden from the encoder.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
    """

    mask_ratio: float = 0.6
    decoder_depth: int = 4
    decoder_heads: int = 6

    def __post_init__(self) -> None:
        _require(0 < self.mask_ratio < 1, f"mask_ratio must lie in (0, 1), got {self.mask_ratio}")
        _positive(self, "decoder_depth", "decoder_heads")


@dataclass(frozen=True, kw_only=True)
class JepaConfig:
    """Point-JEPA: context, targets, predictor and EMA (field.md E1).

    Attributes:
        target_blocks: target blocks of a cloud.
        target_ratio: share of the tokens in a target block, drawn per cloud from this range.
        context_ratio: share of the tokens no target covers that the context takes.
        predictor_dim: width of the predictor.
        predictor_depth: its blocks.
        predictor_heads: its heads.
        predictor_dropout: its dropout.
        predictor_attention_dropout: its attention dropout.
        predictor_drop_path: its stochastic depth, the same in every block.
        ema_start: decay of the target encoder at the first step.
        ema_end: decay at the end of training, reached linearly.
        beta: of the smooth L1 loss.
    """

    target_blocks: int = 4
    target_ratio: tuple[float, float] = (0.15, 0.2)
    context_ratio: tuple[float, float] = (0.4, 0.75)
    predictor_dim: int = 192
    predictor_depth: int = 6
    predictor_heads: int = 6
    predictor_dropout: float = 0.1
    predictor_attention_dropout: float = 0.05
    predictor_drop_path: float = 0.25
    ema_start: float = 0.9995
    ema_end: float = 0.99999
    beta: float = 2.0

    def __post_init__(self) -> None:
        _positive(
            self, "target_blocks", "predictor_dim", "predictor_depth", "predictor_heads", "beta"
        )
        for name in ("target_ratio", "context_ratio"):
            low, high = getattr(self, name)
            _require(0 < low <= high <= 1, f"{name} needs 0 < low <= high <= 1, got {low}, {high}")
        _require(
            0 < self.ema_start <= self.ema_end <= 1,
            f"EMA decays need 0 < ema_start <= ema_end <= 1, got {self.ema_start}, {self.ema_end}",
        )
        _fraction(self, "predictor_dropout", "predictor_attention_dropout", "predictor_drop_path")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clouds come from and how they are held apart.

    Attributes:
        train: an .npz archive, a folder of files (`class/file`, or without classes), a folder of
            shards (`foundry3d data pack`; training only, nothing is held out), or `procedural`.
        test: the same, or null; classes of a folder are matched by name. Never used to select
            anything.
        train_clouds: procedural clouds for training.
        test_clouds: procedural clouds for testing.
        validation: share of the training clouds held out, stratified by class.
        points: points of a cloud that the model reads.
        subsample: how training takes them from larger clouds: random, or fps (the paper, slower).
        up: the axis that points up.
    """

    train: str = "procedural"
    test: str | None = "procedural"
    train_clouds: int = 4000
    test_clouds: int = 1000
    validation: float = 0.1
    points: int = 1024
    subsample: Literal["random", "fps"] = "random"
    up: Literal["x", "y", "z"] = "z"

    def __post_init__(self) -> None:
        _positive(self, "train_clouds", "test_clouds", "points")
        _fraction(self, "validation")
        _require(self.up in ("x", "y", "z"), f"up is one of x, y, z; got {self.up!r}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Training augmentation, drawn per cloud (Table 15).

    Attributes:
        scale: range of a factor drawn for each axis.
        flip: mirror a random half of the clouds, across a vertical plane.
        rotate: rotate about the up axis by an angle in [-pi, pi].
        translate: shift along each axis by at most this.
        center: move the mean to the origin, then scale into the unit sphere.
    """

    scale: tuple[float, float] = (0.8, 1.2)
    flip: bool = False
    rotate: bool = True
    translate: float = 0.0
    center: bool = True

    def __post_init__(self) -> None:
        low, high = self.scale
        _require(0 < low <= high, f"scale needs 0 < low <= high, got {low}, {high}")
        _require(self.translate >= 0, f"translate must not be negative, got {self.translate}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The optimiser, its schedule, and the machine (AdamW, warm-up, cosine).

    Attributes:
        epochs: passes over the training clouds.
        batch_size: clouds a step and process; an incomplete last batch is dropped.
        lr: peak learning rate.
        start_lr: rate at the first warm-up epoch.
        final_lr: rate at the last step.
        warmup_epochs: linear warm-up.
        weight_decay: AdamW decay on all parameters.
        clip: gradient norm limit; null = none.
        precision: Lightning's name of the arithmetic, e.g. 32-true, bf16-mixed, 16-mixed.
        accelerator: auto, cpu, gpu.
        devices: number of devices, or auto.
        nodes: number of machines.
        seed: of every random draw of the run.
        logger: a logger beside CSV and TensorBoard: none, wandb or mlflow.
        checkpoint_every: epochs between resumable checkpoints.
    """

    epochs: int = 150
    batch_size: int = 512
    lr: float = 1e-3
    start_lr: float = 1e-6
    final_lr: float = 1e-6
    warmup_epochs: int = 15
    weight_decay: float = 0.05
    clip: float | None = None
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int = 1
    seed: int = 0
    logger: Literal["none", "wandb", "mlflow"] = "none"
    checkpoint_every: int = 1

    def __post_init__(self) -> None:
        _positive(self, "epochs", "batch_size", "lr", "nodes", "checkpoint_every")
        _require(self.warmup_epochs >= 0, f"warmup_epochs must be >= 0, got {self.warmup_epochs}")
        _require(
            self.precision in PRECISIONS,
            f"precision is one of {', '.join(PRECISIONS)}; got {self.precision!r}",
        )
        _require(
            self.clip is None or self.clip > 0, f"clip must be positive or null, got {self.clip}"
        )


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """`foundry3d pretrain`: a teacher by masked reconstruction or Point-JEPA.

    Attributes:
        out: run folder; made, never overwritten unless resumed.
        objective: masked (small budgets) or jepa (the paper's).
        init: a saved backbone to start from, e.g. JEPA from reconstruction weights.
        resume: continue the run in `out`.
    """

    out: str = "runs/teacher"
    objective: Literal["masked", "jepa"] = "masked"
    init: str | None = None
    resume: bool = False
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    masked: MaskedConfig = field(default_factory=MaskedConfig)
    jepa: JepaConfig = field(default_factory=JepaConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """`foundry3d distill`: a student from a frozen teacher, without labels (FMD).

    Attributes:
        teacher: a saved teacher (folder).
        out: run folder.
        supertokens: s.
        student_dim: encoder width of the student; null = the teacher's. Other widths start from
            scratch and are never frozen (ViT-T students).
        student_depth: encoder blocks; null = the teacher's.
        student_heads: attention heads; null = the teacher's head width is kept.
        unfreeze_epoch: epoch from which the encoder trains; null = frozen all the way.
        loss: smooth_l1 (beta 1) or mse.
        resume: continue the run in `out`.
    """

    teacher: str = "runs/teacher"
    out: str = "runs/student"
    supertokens: int = 16
    student_dim: int | None = None
    student_depth: int | None = None
    student_heads: int | None = None
    unfreeze_epoch: int | None = 50
    loss: Literal["smooth_l1", "mse"] = "smooth_l1"
    soft_assignment: bool = False
    dso_bias: bool = False
    cau_norm: bool = False
    supertoken_positions: bool = False
    temperature: float = 1.0
    resume: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(flip=True))
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _positive(self, "supertokens", "temperature")
        for name in ("student_dim", "student_depth", "student_heads"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be positive or null, got {value}")
        _require(
            self.unfreeze_epoch is None or self.unfreeze_epoch >= 0,
            f"unfreeze_epoch must be >= 0 or null, got {self.unfreeze_epoch}",
        )


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """`foundry3d probe`: linear SVM and k-NN on frozen features; the untrained network is a row.

    Attributes:
        models: saved models (folders), in the order of the table.
        random_tokens: for every teacher among them, also rows that encode this many random tokens.
        out: JSON-lines file the rows are added to; null = only shown.
        data: labelled clouds with a test part.
        seed: of the untrained weights and the held-out clouds.
    """

    models: tuple[str, ...] = ()
    random_tokens: tuple[int, ...] = ()
    out: str | None = "results.jsonl"
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        _require(len(self.models) > 0, "name at least one saved model with --models")
        _require(
            all(n > 0 for n in self.random_tokens),
            f"random_tokens must be positive, got {self.random_tokens}",
        )


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """`foundry3d cost`: MACs, FLOPs and parameters, counted on the real modules.

    Attributes:
        paper: our count beside every row of the paper's cost tables.
        model: a saved model (folder) or a preset (vit_t, vit_s, vit_b) to account for.
        supertokens: with a preset: its students of these many supertokens too.
        clouds: clouds a forward pass.
        json: also write the rows to this file.
    """

    paper: bool = False
    model: str = "vit_s"
    supertokens: tuple[int, ...] = (16, 8, 4, 2, 1)
    clouds: int = 64
    json: str | None = None

    def __post_init__(self) -> None:
        _positive(self, "clouds")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """`foundry3d demo`: the whole of Foundation Model Distillation on built-in shapes.

    Attributes:
        out: run folder.
        seed: of data, weights and training.
    """

    out: str = "runs/demo"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """`foundry3d convert`: any checkpoint as a folder of our own, with a model card.

    Attributes:
        path: a Point-JEPA, point2vec, Point-MAE or Point-BERT file, or a checkpoint folder.
        out: the folder to write.
        num_heads: attention heads, where the file does not store them.
        num_groups: tokens of a cloud, likewise.
        group_size: points of a token, likewise.
        weights: online, or the exponential moving average where the file holds one.
        license: of the weights, for the card.
    """

    path: str = ""
    out: str = "model"
    num_heads: int | None = None
    num_groups: int | None = None
    group_size: int | None = None
    weights: Literal["online", "ema"] = "online"
    license: str = "other"

    def __post_init__(self) -> None:
        _require(bool(self.path), "name the checkpoint to convert: foundry3d convert PATH")


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """`foundry3d data pack`: a large collection as tar shards that training streams.

    Attributes:
        source: an .npz archive, a folder of point-cloud files, or `procedural`.
        out: folder of the shards and their index; must not hold anything yet.
        shard_clouds: clouds of a shard.
        clouds: built-in shapes to pack.
        points: of a built-in shape, or drawn from a mesh; files of points keep all of theirs.
        seed: of built-in shapes, points drawn from meshes, and the order.
    """

    source: str = "procedural"
    out: str = "shards"
    shard_clouds: int = 1000
    clouds: int = 4000
    points: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(self, "shard_clouds", "clouds", "points")
        _require(self.seed >= 0, f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """`foundry3d doctor`: what was found on this machine, and what was picked."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """`foundry3d embed`: features of point clouds and meshes in files, as one .npz archive.

    Attributes:
        files: point-cloud and mesh files, folders of them, or globs.
        model: a saved model (folder), or a checkpoint file of another project.
        out: the archive to write; an earlier one is replaced when the new one is complete.
        points: a random subset of each cloud; null = all of its points.
        samples: points drawn from the surface of a mesh.
        seed: of the subsets and of the draws from meshes.
        up: the axis that points up in the files; null = the same as in the model's training.
        normalise: centre each cloud and scale it into the unit sphere; null = as in the model's
            training, and yes where the model does not say.
        batch: clouds of equal size that go through the model together.
    """

    files: tuple[str, ...] = ()
    model: str = ""
    out: str = "features.npz"
    points: int | None = None
    samples: int = 16384
    seed: int = 0
    up: Literal["x", "y", "z"] | None = None
    normalise: bool | None = None
    batch: int = 16

    def __post_init__(self) -> None:
        _require(len(self.files) > 0, "name files to embed: foundry3d embed FILES --model MODEL")
        _require(bool(self.model), "name a saved model with --model")
        _positive(self, "samples", "batch")
        _require(
            self.points is None or self.points > 0,
            f"points must be positive or null, got {self.points}",
        )
        _require(self.seed >= 0, f"seed must be >= 0, got {self.seed}")
        _require(self.up in (None, "x", "y", "z"), f"up is one of x, y, z; got {self.up!r}")


RECIPES = Path(__file__).parent / "recipes"


def read_recipe(kind: type[T], name: str) -> T:
    """The record of type `kind` that a recipe of the package (`cpu/pretrain`) describes.

    Raises:
        InputError: no such recipe, or one with keys that `kind` does not have.
    """
    path = RECIPES / f"{name}.yaml"
    _require(path.is_file(), f"no recipe {name!r} in the package")
    return from_dict(kind, yaml.safe_load(path.read_text()))
