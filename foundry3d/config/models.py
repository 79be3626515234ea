"""Sizes of backbones and students, and a student's options relative to its teacher."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from foundry3d.config.attributes import check_attributes, width_of
from foundry3d.config.records import (
    DEEPEST,
    WIDEST,
    fraction,
    from_dict,
    not_negative,
    positive,
    positive_or_null,
    require,
)

MOST_WEIGHTS = 3e10
"""Weights of the largest encoder; the largest vision transformer has 2.2e10."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A point-cloud transformer: tokenizer, position, encoder (ViT-S by default).

    Attributes:
        groups: c, tokens per cloud.
        group_size: k, points per token.
        radius: group coordinates are divided by it; null = they are not.
        point_widths: hidden widths of the tokenizer: three for a mini-PointNet, two for its
            single-stage form, which pools the points of a group once.
        point_bias: biases on the tokenizer's convolutions before a BatchNorm.
        tokenizer_dim: output width of the tokenizer where a Linear brings its tokens to token_dim
            (Point-BERT, three widths only); null = no such Linear.
        token_dim: width of tokens and positions; null = dim. Where it differs from dim, two Linear
            layers bring tokens and positions to dim (ViT-T students of wider teachers).
        position_dim: hidden width of the position MLP.
        class_token: a learned token with a learned position joins the encoder's input; its feature
            is not returned (Point-BERT). Only for backbones: a student has none.
        dim: d, encoder width.
        depth: number of blocks; 0 only for a truncated student.
        heads: attention heads, a divisor of dim.
        mlp_ratio: hidden width of the block MLPs, as a multiple of dim.
        qkv_bias: bias on the attention input projection.
        dropout: after attention and MLP, in training.
        attention_dropout: on attention weights, in training.
        drop_path: stochastic depth of the last block, rising linearly from 0.
        attributes: what the tokenizer reads of each point in addition to its coordinates, in this
            order: normal (3 channels), color (3), intensity (1), or any other one with its number
            of channels, e.g. curvature:1 (`docs/attributes.md`).
        attribute_dropout: probability that an attribute of a cloud counts as absent in training;
            above 0 the model also reads clouds that lack some of its attributes.
    """

    groups: int = 64
    group_size: int = 32
    radius: float | None = None
    point_widths: tuple[int, ...] = (128, 256, 512)
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
    attributes: tuple[str, ...] = ()
    attribute_dropout: float = 0.0

    def __post_init__(self) -> None:
        positive(self, "groups", "group_size", "position_dim", "dim", most=WIDEST)
        positive(self, "heads", most=DEEPEST)
        not_negative(self, "depth", most=DEEPEST)
        positive(self, "mlp_ratio", most=DEEPEST)
        positive_or_null(self, "tokenizer_dim", "token_dim", most=WIDEST)
        positive_or_null(self, "radius")
        fraction(self, "dropout", "attention_dropout", "drop_path", "attribute_dropout")
        check_attributes(self.attributes)
        check_widths(self.point_widths)
        require(
            self.tokenizer_dim is None or len(self.point_widths) == 3,
            f"tokenizer_dim needs three point_widths, got {self.point_widths}",
        )
        require(
            self.dim % self.heads == 0, f"heads must divide dim, got {self.heads} and {self.dim}"
        )
        weights = self.depth * self.dim**2 * (4 + 2 * self.mlp_ratio)
        require(
            weights <= MOST_WEIGHTS,
            f"an encoder has at most {MOST_WEIGHTS:.0e} weights, got {weights:.1e} by dim "
            f"{self.dim} and depth {self.depth}",
        )

    @property
    def point_channels(self) -> int:
        """Numbers that the tokenizer reads of each point: 3, and each attribute's and presence."""
        return width_of(self.attributes) + len(self.attributes)


PRESETS: dict[str, dict[str, Any]] = {
    "vit_t": {"dim": 192, "heads": 3},
    "vit_s": {"dim": 384, "heads": 6},
    "vit_b": {"dim": 768, "heads": 12},
}


def preset(name: str, **changes: Any) -> BackboneConfig:
    """The sizes of a preset (`vit_t`, `vit_s`, `vit_b`), with fields of `BackboneConfig` changed.

    Raises:
        InputError: unknown name or field.
    """
    require(name in PRESETS, f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    return from_dict(BackboneConfig, PRESETS[name] | changes)


@dataclass(frozen=True, kw_only=True)
class SupertokenOptions:
    """What a student has whatever its teacher: supertokens, DSO, CAU and gate.

    Attributes:
        supertokens: s, learned supertokens.
        supertokens_after: blocks that all tokens pass before the DSO reads them; the others encode
            supertokens, and the CAU reads the tokens of that block. 0 = the paper's student.
        soft_assignment: softmax over the supertokens instead of one supertoken per token
            (ablation).
        dso_bias: bias on the DSO's W_Q, W_K, W_V (ablation).
        cau_norm: LayerNorm on the CAU output (ablation).
        supertoken_positions: learned positions added to the supertokens (ablation, "use
            supertoken P" of Table 15).
        assignment_heads: h, a divisor of the encoder width; each head assigns its own slice of
            the width (ablation). Not with a gate.
        temperature: of the Gumbel-Softmax in training.
        temperature_end: the temperature falls (or rises) geometrically from `temperature` to this
            one while the student is distilled, and stays there; null = it is constant (ablation).
        supertoken_std: standard deviation of the normal distribution, cut at -2 and 2, from which
            the initial supertokens are drawn (ablation; 0.02 is usual for learned tokens).
        cau_positions: the CAU reads tokens with their positions, MLP(T + P + CAM S), as section 3.1
            defines T; without, T is the tokenizer's output alone (`docs/method.md`).
        gate: add a gate, which decides which tokens are merged, so that a token budget can be set
            at inference.
        gate_ratio: r where a call sets no budget: tokens whose fusion probability is higher are
            merged.
        gate_through: the distillation loss reaches the gate. Without, only the regulariser does, as
            in the paper's Listing 1, whose two uses of the selection cancel.
    """

    supertokens: int = 16
    supertokens_after: int = 0
    soft_assignment: bool = False
    dso_bias: bool = False
    cau_norm: bool = False
    supertoken_positions: bool = False
    assignment_heads: int = 1
    temperature: float = 1.0
    temperature_end: float | None = None
    supertoken_std: float = 1.0
    cau_positions: bool = True
    gate: bool = False
    gate_ratio: float = 0.5
    gate_through: bool = True

    def __post_init__(self) -> None:
        positive(self, "supertokens", "assignment_heads", most=WIDEST)
        positive(self, "temperature", "supertoken_std")
        positive_or_null(self, "temperature_end")
        not_negative(self, "supertokens_after", most=DEEPEST)
        require(
            self.assignment_heads == 1 or not self.gate,
            f"a gate merges whole tokens, so it needs assignment_heads 1, got "
            f"{self.assignment_heads}",
        )
        require(0 <= self.gate_ratio <= 1, f"gate_ratio must lie in [0, 1], got {self.gate_ratio}")


@dataclass(frozen=True, kw_only=True)
class StudentConfig(SupertokenOptions):
    """A student: a backbone with supertokens around its encoder (DSO and CAU).

    Attributes:
        backbone: tokenizer, position, encoder; `token_dim` is the teacher's width.
        output_dim: width of the returned features; None = backbone.dim.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    output_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.backbone.dim % self.assignment_heads == 0,
            f"assignment_heads must divide the encoder width, got {self.assignment_heads} and "
            f"{self.backbone.dim}",
        )
        require(not self.backbone.class_token, "a student has no class token, got class_token")
        depth = self.backbone.depth
        require(
            self.supertokens_after < depth,
            f"supertokens_after leaves blocks for the supertokens: expected fewer than the "
            f"{depth} blocks, got {self.supertokens_after}",
        )
        require(
            self.supertokens <= self.backbone.groups,
            f"supertokens must lie in 1..{self.backbone.groups} (the tokens), "
            f"got {self.supertokens}",
        )


@dataclass(frozen=True, kw_only=True)
class TruncatedConfig:
    """A student without supertokens: the first blocks of an encoder, and an MLP.

    Attributes:
        backbone: tokenizer, position, blocks; `token_dim` is the teacher's width.
        output_dim: width of the returned features; None = backbone.dim.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    output_dim: int | None = None

    def __post_init__(self) -> None:
        positive_or_null(self, "output_dim", most=WIDEST)
        require(not self.backbone.class_token, "a student has no class token, got class_token")


StudentKind = Literal[
    "supertokens",
    "truncated",
    "tome",
    "pitome",
    "patchmerger",
    "kmeans",
    "fps",
    "random",
    "fps-student",
]
SIZES = ("dim", "depth", "heads", "point_widths", "group_size", "attributes")
"""The options of `StudentOptions` that change sizes of the teacher."""


@dataclass(frozen=True, kw_only=True)
class StudentOptions(SupertokenOptions):
    """A student as it differs from its teacher, from which all other sizes are taken.

    Attributes:
        kind: supertokens (the paper's); truncated, the teacher's first `depth` blocks and an MLP,
            which takes the six options of sizes; or a baseline that reaches as many tokens: a
            token reducer inside the encoder (tome, pitome, patchmerger, kmeans, fps, random), or
            the second, coarser tokenizer of FPS-Student (fps-student). A baseline takes only
            `supertokens`, the number of tokens that it leaves.
        dim: encoder width; null = the teacher's. Where width, depth or heads differ (ViT-T
            students) the encoder starts from scratch and cannot be frozen; a truncated student of
            the teacher's width and heads keeps its first blocks.
        depth: encoder blocks; null = the teacher's. A truncated student needs it, and may have 0.
        heads: attention heads; null = as many as keep the teacher's head width.
        point_widths: hidden widths of the tokenizer, see `BackboneConfig`; a tokenizer of other
            widths than the teacher's starts from scratch. null = the teacher's.
        group_size: points per token that the student reads, the nearest of those that the teacher
            reads; null = as many.
        attributes: those of the teacher's that the student reads; null = all of them.
    """

    kind: StudentKind = "supertokens"
    dim: int | None = None
    depth: int | None = None
    heads: int | None = None
    point_widths: tuple[int, ...] | None = None
    group_size: int | None = None
    attributes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = get_args(StudentKind)
        require(self.kind in known, f"kind is one of {', '.join(known)}; got {self.kind!r}")
        positive_or_null(self, "dim", "group_size", most=WIDEST)
        positive_or_null(self, "heads", most=DEEPEST)
        truncated = self.kind == "truncated"
        if truncated:
            require(self.depth is not None, "kind truncated needs its blocks; add --student.depth")
            not_negative(self, "depth", most=DEEPEST)
        else:
            positive_or_null(self, "depth", most=DEEPEST)
        if self.point_widths is not None:
            check_widths(self.point_widths)
        check_attributes(self.attributes or ())
        if self.kind != "supertokens":
            taken = SIZES if truncated else ("supertokens",)
            changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
            changed = [name for name in changed if name not in ("kind", *taken)]
            require(
                not changed,
                f"a student of kind {self.kind} takes only {', '.join(taken)}, not "
                f"{', '.join(changed)}",
            )


def check_widths(widths: tuple[int, ...]) -> None:
    """Requires widths that a tokenizer can have."""
    require(
        len(widths) in (2, 3) and 0 < min(widths) <= max(widths) <= WIDEST,
        f"point_widths are two or three widths in 1..{WIDEST}, got {widths}",
    )
