"""Fewer tokens without learned supertokens: the rows a student is compared with.

Shapes: B clouds, c tokens, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundry3d.backbone import Backbone, Tokens
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, gather


def random_choice(
    batch: int, tokens: int, keep: int, *, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """(B, keep) distinct random token indices, each cloud its own."""
    order = torch.rand(batch, tokens, device=device, generator=generator).argsort(dim=1)
    return order[:, :keep]


class RandomSampling(nn.Module):
    """A teacher that, at inference, encodes only a random few of its tokens (Table 5).

    Args:
        backbone: the teacher, used as it is.
        keep: c_rs, tokens kept of each cloud; features come back for these alone.
        seed: of the choice, which is the same at every call.

    Raises:
        InputError: keep outside 1..c.
    """

    def __init__(self, backbone: Backbone, keep: int, *, seed: int = 0) -> None:
        super().__init__()
        if not 1 <= keep <= backbone.config.groups:
            raise InputError(f"keep must lie in 1..{backbone.config.groups} tokens, got {keep}")
        self.backbone, self.keep, self.seed = backbone, keep, seed

    def forward(self, points: Tensor) -> Tokens:
        """Features (B, keep, d) of points (B, N, 3)."""
        groups: Groups = self.backbone.group(points)
        generator = torch.Generator(device=points.device).manual_seed(self.seed)
        chosen = random_choice(
            len(points),
            groups.centers.shape[1],
            self.keep,
            device=points.device,
            generator=generator,
        )
        tokens, positions = self.backbone.tokens(groups)
        kept = self.backbone.with_class(gather(tokens, chosen), gather(positions, chosen))
        features = self.backbone.encoder(*kept)[:, -self.keep :]
        count = torch.full(features.shape[:1], self.keep, device=points.device)
        return Tokens(features=features, centers=gather(groups.centers, chosen), tokens_used=count)
