"""The plain form that ratios are relative to: the published algorithm, written straightforwardly.

Farthest points and neighbours use whole-tensor operations, the mini-PointNet repeats and
concatenates the group's maximum, and linear layers and norms are separate. It is tried at several
batch sizes with memory retained, and the fastest is the baseline: at batch 64 such a form spends
much of its time in the allocator instead of on arithmetic.

Shapes: B clouds, N points, c tokens, k points per group, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundry3d.errors import InputError
from foundry3d.geometry import group_points
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget, refuse_budget
from foundry3d.models.tokenizer import Tokenizer

BATCHES = (64, 8, 1)
"""Batch sizes at which the plain form is tried."""


class PlainTokenizer(nn.Module):
    """The mini-PointNet of the published code, with the weights of a `Tokenizer`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()

        def linear(part: nn.Linear) -> nn.Linear:
            made = nn.Linear(part.in_features, part.out_features, bias=part.bias is not None)
            made.load_state_dict(part.state_dict())
            return made

        self.first = nn.Sequential(
            linear(tokenizer.lift), tokenizer.lift_norm, nn.ReLU(), linear(tokenizer.widen)
        )
        self.second = nn.Sequential(
            linear(tokenizer.mix), tokenizer.mix_norm, nn.ReLU(), linear(tokenizer.project)
        )
        self.bridge = tokenizer.bridge

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, 3)."""
        batch, count, size, _ = neighborhoods.shape
        x = self.first(neighborhoods.reshape(-1, 3)).view(batch * count, size, -1)
        most = x.max(dim=1, keepdim=True).values.expand(-1, size, -1)
        x = self.second(torch.cat([most, x], dim=2).flatten(0, 1))
        return self.bridge(x.view(batch, count, size, -1).max(dim=2).values)


class PlainTeacher(nn.Module):
    """A backbone in its plain form, for evaluation; weights are copied or shared.

    Args:
        backbone: not changed.

    Raises:
        InputError: the tokenizer has two widths; the published one has three.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        if not isinstance(backbone.tokenizer, Tokenizer):
            raise InputError("the published form needs a teacher with three point_widths")
        self.backbone = backbone
        self.tokenizer = PlainTokenizer(backbone.tokenizer).to(next(backbone.parameters()).device)
        self.eval()

    def forward(self, points: Tensor, *, budget: Budget | None = None) -> Tokens:
        """Features of points (B, N, 3); a teacher takes no budget."""
        refuse_budget(budget)
        own = self.backbone
        groups = group_points(
            points, own.shape.groups, own.shape.group_size, radius=own.shape.radius, backend="torch"
        )
        embedded = own.embed_groups(groups, self.tokenizer(groups.neighborhoods))
        features = own.encoder(*own.with_class(*embedded))
        used = torch.full(features.shape[:1], features.shape[1], device=features.device)
        features = features[:, -groups.centers.shape[1] :]
        return Tokens(features=features, centers=groups.centers, tokens_used=used)
