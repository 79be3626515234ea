"""One record for each command of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foundry3d.config.light import LightTokenizerConfig
from foundry3d.config.models import BackboneConfig, JepaConfig, MaskedConfig
from foundry3d.config.records import positive, require
from foundry3d.config.training import AugmentConfig, BudgetDraws, DataConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """`foundry3d pretrain`: a teacher by masked reconstruction or Point-JEPA.

    Attributes:
        out: run folder; made, never overwritten unless resumed.
        objective: masked (small budgets) or jepa (the paper's).
        init: a saved backbone to start from, e.g. JEPA from reconstruction weights.
        supertokens: s, pre-trains a student whose encoders see supertokens (jepa only; the
            paper's Table 9, where it fails); null = a backbone that sees all of its tokens.
        resume: continue the run in `out`.
    """

    out: str = "runs/teacher"
    objective: Literal["masked", "jepa"] = "masked"
    init: str | None = None
    supertokens: int | None = None
    resume: bool = False
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    masked: MaskedConfig = field(default_factory=MaskedConfig)
    jepa: JepaConfig = field(default_factory=JepaConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        require(
            self.supertokens is None or (self.objective == "jepa" and self.init is None),
            "pre-training with supertokens is for --objective jepa, from scratch; leave init null",
        )


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """`foundry3d distill`: a student from a frozen teacher, without labels (FMD).

    Attributes:
        teacher: a saved teacher (folder).
        out: run folder.
        student: supertokens (the paper's), or a baseline that reaches as many tokens: a token
            reducer inside the encoder (tome, pitome, patchmerger, kmeans, fps, random), or the
            second, coarser tokenizer of FPS-Student (fps-student).
        supertokens: s.
        student_dim: encoder width of the student; null = the teacher's. Other widths start from
            scratch and are never frozen (ViT-T students).
        student_depth: encoder blocks; null = the teacher's.
        student_heads: attention heads; null = the teacher's head width is kept.
        student_tokenizer: a lighter tokenizer than the teacher's, and how it learns.
        unfreeze_epoch: epoch from which the encoder trains; null = frozen all the way.
        starts: where farthest point sampling starts: at a random point of each cloud, or always
            at the first.
        teacher_cache: MB of memory, of each process and where its student trains, that the
            teacher's features of all training clouds may take. They are computed once where
            nothing about a cloud is drawn: augment.scale 1 1 without flip, rotate and translate,
            starts first, no random subsample. 0 = never.
        loss: smooth_l1 (beta 1) or mse.
        soft_assignment, dso_bias, cau_norm, supertoken_positions, assignment_heads, temperature:
            as in `StudentConfig`.
        gate: the student gets a gate, so that a token budget can be set at inference.
        gate_lambda: weight of the regulariser that pulls towards merging (equation 6).
        gate_decay: weight decay on the gate too.
        gate_through: the distillation loss reaches the gate; without, only the regulariser does.
        budgets: what is drawn in training to serve any budget from one checkpoint.
        resume: continue the run in `out`.
    """

    teacher: str = "runs/teacher"
    out: str = "runs/student"
    student: Literal[
        "supertokens", "tome", "pitome", "patchmerger", "kmeans", "fps", "random", "fps-student"
    ] = "supertokens"
    supertokens: int = 16
    student_dim: int | None = None
    student_depth: int | None = None
    student_heads: int | None = None
    student_tokenizer: LightTokenizerConfig = field(default_factory=LightTokenizerConfig)
    unfreeze_epoch: int | None = 50
    starts: Literal["random", "first"] = "random"
    teacher_cache: int = 2048
    loss: Literal["smooth_l1", "mse"] = "smooth_l1"
    soft_assignment: bool = False
    dso_bias: bool = False
    cau_norm: bool = False
    supertoken_positions: bool = False
    assignment_heads: int = 1
    temperature: float = 1.0
    gate: bool = False
    gate_lambda: float = 0.0
    gate_decay: bool = False
    gate_through: bool = True
    budgets: BudgetDraws = field(default_factory=BudgetDraws)
    resume: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(flip=True))
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        positive(self, "supertokens", "temperature")
        require(self.teacher_cache >= 0, f"teacher_cache must be >= 0 MB, got {self.teacher_cache}")
        require(
            0 <= self.gate_lambda < float("inf"),
            f"gate_lambda must not be negative, got {self.gate_lambda}",
        )
        require(
            self.student == "supertokens" or not (self.gate or self.budgets.nested),
            f"gate and budgets.nested are for students of supertokens, got student {self.student}",
        )
        require(
            self.gate or not (self.budgets.random_ratio or self.gate_lambda or self.gate_decay),
            "budgets.random_ratio, gate_lambda and gate_decay need the gate; add --gate",
        )
        require(
            self.student == "supertokens" or self.student_tokenizer == LightTokenizerConfig(),
            f"student_tokenizer is for students of supertokens, got student {self.student}",
        )
        require(
            self.student_tokenizer.epochs < self.train.epochs,
            f"student_tokenizer.epochs must be fewer than the {self.train.epochs} train.epochs, "
            f"got {self.student_tokenizer.epochs}",
        )
        for name in ("student_dim", "student_depth", "student_heads"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be positive or null, got {value}")
        require(
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
        require(len(self.models) > 0, "name at least one saved model with --models")
        require(
            all(n > 0 for n in self.random_tokens),
            f"random_tokens must be positive, got {self.random_tokens}",
        )


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """`foundry3d cost`: MACs, FLOPs and parameters, counted on the real modules.

    Attributes:
        paper: our count beside every row of the paper's cost tables.
        formula: the closed forms of Table 1 and Appendix C beside the counts, one cloud.
        merged: with formula: tokens of a cloud that the gated student merges; null = half.
        model: a saved model (folder) or a preset (vit_t, vit_s, vit_b) to account for.
        supertokens: with a preset: its students of these many supertokens too.
        clouds: clouds a forward pass.
        json: also write the rows to this file.
    """

    paper: bool = False
    formula: bool = False
    merged: int | None = None
    model: str = "vit_s"
    supertokens: tuple[int, ...] = (16, 8, 4, 2, 1)
    clouds: int = 64
    json: str | None = None

    def __post_init__(self) -> None:
        positive(self, "clouds")
        require(not (self.paper and self.formula), "choose one of --paper and --formula")
        require(
            self.merged is None or (self.formula and self.merged >= 0),
            f"merged goes with --formula and must not be negative, got {self.merged}",
        )


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
        require(bool(self.path), "name the checkpoint to convert: foundry3d convert PATH")


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
        positive(self, "shard_clouds", "clouds", "points")
        require(self.seed >= 0, f"seed must not be negative, got {self.seed}")


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
        token_budget: exactly as many tokens enter the encoder (students with a gate).
        ratio: tokens of a higher fusion probability are merged (students with a gate).
        supertokens: the first so many supertokens are used (students).
        points_per_token: every cloud is a scene of as many tokens as it has points over this
            number (16: as 64 of 1024), streamed in chunks; null = the model's number of tokens.
        windows: a scene's tokens are encoded in windows of at most so many that lie together, each
            on its own; as many as the model's groups is what it was trained on.
        zoom: a scene's neighbourhoods are multiplied by this; null = to the size that the model
            knows where it was trained on clouds in the unit sphere, else 1. Not with windows.
        precision: fp32 or bf16, of the model's inference form (`foundry3d.compile`), that scenes go
            through.
        dense: a .npy to write, one float16 feature for every point of every scene.
        picture: a .png to draw, the scenes in the main directions of their features.
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
    token_budget: int | None = None
    ratio: float | None = None
    supertokens: int | None = None
    points_per_token: int | None = None
    windows: int | None = None
    zoom: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    dense: str | None = None
    picture: str | None = None

    def __post_init__(self) -> None:
        require(len(self.files) > 0, "name files to embed: foundry3d embed FILES --model MODEL")
        require(bool(self.model), "name a saved model with --model")
        positive(self, "samples", "batch")
        require(
            self.points is None or self.points > 0,
            f"points must be positive or null, got {self.points}",
        )
        require(self.seed >= 0, f"seed must be >= 0, got {self.seed}")
        require(self.up in (None, "x", "y", "z"), f"up is one of x, y, z; got {self.up!r}")
        self._check_scene()

    def _check_scene(self) -> None:
        for name in ("points_per_token", "windows", "zoom"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be positive or null, got {value}")
        require(
            self.precision in ("fp32", "bf16"),
            f"precision is one of fp32, bf16; got {self.precision!r}",
        )
        for name in ("windows", "zoom", "dense", "picture"):
            require(
                self.points_per_token is not None or getattr(self, name) is None,
                f"{name} is for scenes; say how many points a token stands for "
                "(--points_per_token 16)",
            )
        require(
            self.windows is None or self.zoom is None,
            "give one of windows and zoom: windows are brought to the size that the model knows",
        )
        require(
            self.dense is None or self.points is None,
            "dense features are one for every point of the file; leave --points out",
        )
