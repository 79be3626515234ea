"""Teacher and student: points in, a feature for each of the c tokens out.

Shapes: B clouds, N points, c tokens, k points a group, s supertokens, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foundry3d import config as configs
from foundry3d.config import BackboneConfig
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, check_points, draw_start, group_points
from foundry3d.models.tokenizer import Position, tokenizer_of
from foundry3d.models.vit import Encoder, initialise


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Output of every model.

    Attributes:
        features: (B, c, d) one feature a token.
        centers: (B, c, 3) where the tokens are.
        assignment: (B, c) int64, the supertoken of each token, -1 = not merged; None for teachers.
            Of the first head where a student has several assignment heads.
        tokens_used: (B,) int64, how many tokens entered the encoder.
        probability: (B, c) the gate's fusion probabilities; None without a gate.
    """

    features: Tensor
    centers: Tensor
    assignment: Tensor | None = None
    tokens_used: Tensor
    probability: Tensor | None = None

    def pooled(self) -> Tensor:
        """(B, 2d): maximum and mean over the tokens, the global feature of the protocols."""
        return torch.cat([self.features.amax(dim=1), self.features.mean(dim=1)], dim=-1)


class TokenFeatures(Protocol):
    """What a teacher returns: `features` (B, c, d) and `centers` (B, c, 3) of the c tokens."""

    @property
    def features(self) -> Tensor:
        """(B, c, d) one feature a token."""
        ...

    @property
    def centers(self) -> Tensor:
        """(B, c, 3) where the tokens are, in the coordinates of the points."""
        ...


class Teacher(Protocol):
    """Anything that can be distilled: points (B, N, 3) in, token features out.

    A module of one's own satisfies it as it is, without inheriting from anything here.
    """

    def __call__(self, points: Tensor, /) -> TokenFeatures:
        """Token features of points (B, N, 3)."""
        ...


class Grouped(nn.Module):
    """What teacher and student share: grouping, tokens and positions."""

    shape: BackboneConfig

    def _build(self, backbone: BackboneConfig) -> None:
        width = backbone.token_dim or backbone.dim
        self.shape = backbone
        self.tokenizer = tokenizer_of(
            width,
            backbone.point_widths,
            bias=backbone.point_bias,
            inner_dim=backbone.tokenizer_dim,
        )
        self.position = Position(width, backbone.position_dim)
        bridged = width != backbone.dim
        self.token_bridge = nn.Linear(width, backbone.dim) if bridged else nn.Identity()
        self.position_bridge = nn.Linear(width, backbone.dim) if bridged else nn.Identity()
        self.encoder = Encoder(
            backbone.dim,
            backbone.depth,
            backbone.heads,
            mlp_ratio=backbone.mlp_ratio,
            qkv_bias=backbone.qkv_bias,
            dropout=backbone.dropout,
            attention_dropout=backbone.attention_dropout,
            drop_path=backbone.drop_path,
        )

    def group(
        self,
        points: Tensor,
        *,
        generator: torch.Generator | None = None,
        group_size: int | None = None,
        drawn: bool = True,
    ) -> Groups:
        """Groups of points (B, N, 3); FPS starts at index 0, in training mode at a drawn one.

        Args:
            points: (B, N, 3).
            generator: of the start in training mode.
            group_size: k; None = the model's own.
            drawn: False = FPS starts at index 0 in training mode too.

        Raises:
            InputError: points that `geometry.check_points` refuses, or on another device or of
                another precision than the weights.
        """
        start = None
        if self.training and drawn:
            check_points(points)
            start = draw_start(*points.shape[:2], device=points.device, generator=generator)
        shape = self.shape
        size = shape.group_size if group_size is None else group_size
        groups = group_points(points, shape.groups, size, start=start, radius=shape.radius)
        check_kind(points, self.encoder.norm.weight)
        return groups

    def tokens(self, groups: Groups) -> tuple[Tensor, Tensor]:
        """Tokens (B, c, d) and positions (B, c, d) of the groups, at the encoder's width."""
        return self.entering(self.tokenizer(groups.neighborhoods), groups.centers)

    def entering(self, tokens: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
        """The tokenizer's tokens and the positions of centers (B, c, 3), at the encoder's width."""
        return self.token_bridge(tokens), self.position_bridge(self.position(centers))

    def encode(
        self, groups: Groups, *, generator: torch.Generator | None = None, **budget: Any
    ) -> Tokens:
        """Features of grouped points.

        Args:
            groups: of B clouds.
            generator: of the draws in training mode.
            budget: fields of `models.Budget`, students only.

        Raises:
            InputError: a budget that this model cannot keep.
        """
        tokens = self.tokenizer(groups.neighborhoods)
        return self.encode_tokens(tokens, groups.centers, generator=generator, **budget)

    def encode_tokens(
        self,
        tokens: Tensor,
        centers: Tensor,
        *,
        generator: torch.Generator | None = None,
        **budget: Any,
    ) -> Tokens:
        """What `encode` does after the tokenizer, to its tokens (B, c, d) and their centers."""
        raise NotImplementedError("teacher and student define it")

    def block_features(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        **budget: Any,
    ) -> list[Tensor]:
        """Features (B, c, output_dim) of grouped points after each of these blocks (from 0).

        Before the final LayerNorm. A student's are brought back to all c tokens by its CAU.
        """
        raise NotImplementedError("teacher and student define it")

    def forward(
        self, points: Tensor, *, generator: torch.Generator | None = None, **budget: Any
    ) -> Tokens:
        """Features of points (B, N, 3), taken as they are.

        Args:
            points: (B, N, 3) floating point, N at least groups and group_size.
            generator: of the draws in training mode; None = torch's default one.
            budget: fields of `models.Budget`, students only: `ratio=0.3`, `token_budget=32`,
                `supertokens=4`. Nothing has to be trained again for them.

        Raises:
            InputError: points that `geometry.check_points` refuses, points on another device or
                of another precision than the weights, or a budget that the student cannot keep.
        """
        groups = self.group(points, generator=generator)
        return self.encode(groups, generator=generator, **budget)


class Backbone(Grouped):
    """A point-cloud transformer: the teacher, and what is pre-trained.

    Args:
        config: sizes; see `BackboneConfig`.
        generator: of the initial weights; None = torch's default one.
    """

    def __init__(
        self, config: BackboneConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config or BackboneConfig()
        self._build(self.config)
        initialise(self, generator=generator)
        self.class_token: nn.Parameter | None = None
        self.class_position: nn.Parameter | None = None
        if self.config.class_token:
            self.class_token = nn.Parameter(torch.empty(self.config.dim))
            self.class_position = nn.Parameter(torch.empty(self.config.dim))
            nn.init.trunc_normal_(self.class_token, std=0.02, generator=generator)
            nn.init.trunc_normal_(self.class_position, std=0.02, generator=generator)

    @classmethod
    def preset(cls, name: str, **changes: object) -> Backbone:
        """An untrained backbone in evaluation mode: `vit_t`, `vit_s` or `vit_b`.

        Raises:
            InputError: unknown name or field.
        """
        return cls(configs.preset(name, **changes)).eval()

    @property
    def output_dim(self) -> int:
        """Width of the returned features."""
        return self.config.dim

    def encode_tokens(
        self,
        tokens: Tensor,
        centers: Tensor,
        *,
        generator: torch.Generator | None = None,
        **budget: Any,
    ) -> Tokens:
        """Features of the tokenizer's tokens (B, c, d) at centers (B, c, 3)."""
        _no_budget(budget)
        entering, positions = self.with_class(*self.entering(tokens, centers))
        features = self.encoder(entering, positions, generator=generator)
        count = torch.full(features.shape[:1], features.shape[1], device=features.device)
        features = features[:, -centers.shape[1] :]
        return Tokens(features=features, centers=centers, tokens_used=count)

    def block_features(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        **budget: Any,
    ) -> list[Tensor]:
        """Features (B, c, d) of grouped points after each of these blocks."""
        _no_budget(budget)
        tokens, positions = self.with_class(*self.tokens(groups))
        states = self.encoder.states(tokens, positions, generator=generator)
        return [states[layer][:, -groups.centers.shape[1] :] for layer in layers]

    def with_class(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and positions (B, n, d) with the class token in front, if there is one."""
        if self.class_token is None or self.class_position is None:
            return tokens, positions
        first = self.class_token.to(tokens.dtype).expand(len(tokens), 1, -1)
        place = self.class_position.to(positions.dtype).expand(len(tokens), 1, -1)
        return torch.cat([first, tokens], dim=1), torch.cat([place, positions], dim=1)


def untrained(model: Backbone, points: Tensor) -> Backbone:
    """Sets the BatchNorm statistics of an untrained backbone from points (B, N, 3), in place.

    Without them its evaluation mode would use zero mean and unit variance, which no network ever
    trained has; the untrained row of a report is only fair with them.
    """
    groups = model.group(points)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        model.tokenizer(groups.neighborhoods)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return model


def check_kind(points: Tensor, weight: Tensor) -> None:
    """Refuses points that the layers of a model could not be applied to.

    Raises:
        InputError: another device than the weight's, or a floating-point type that does not go
            with the weight's outside autocast.
    """
    if points.device != weight.device:
        raise InputError(
            f"the points are on {points.device}, the model on {weight.device}; move one of them"
        )
    kind = points.device.type
    single = points.dtype == torch.float32 and weight.dtype != torch.float64
    cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if points.dtype == weight.dtype or single or cast:
        return
    raise InputError(
        f"the points are {points.dtype}, the weights {weight.dtype}; convert the points, e.g. "
        "points.float()"
    )


def _no_budget(budget: dict[str, Any]) -> None:
    if budget:
        raise InputError(
            f"{', '.join(budget)}: a teacher encodes all of its tokens; budgets are for students"
        )


def require_teacher(model: object) -> Backbone:
    """The model if it is a `Backbone`.

    Raises:
        InputError: it is something else, e.g. a student.
    """
    if not isinstance(model, Backbone):
        raise InputError(f"a teacher is a backbone, got a {type(model).__name__}; load the teacher")
    return model
