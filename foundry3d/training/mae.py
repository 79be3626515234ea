"""Masked reconstruction (Point-MAE): hide most groups, rebuild their points from the rest.

Shapes: B clouds, c tokens, v visible, m masked (v + m = c), k points a group, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundry3d.config import MaskedConfig
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, gather
from foundry3d.models.backbone import Backbone
from foundry3d.models.tokenizer import Position
from foundry3d.models.vit import Encoder, initialise


def random_mask(
    batch: int, tokens: int, masked: int, *, device: torch.device, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Indices of visible (B, c - masked) and masked (B, masked) tokens, drawn per cloud."""
    order = torch.rand(batch, tokens, device=device, generator=generator).argsort(dim=1)
    return order[:, masked:], order[:, :masked]


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Symmetric Chamfer-L2 (...) of point sets a (..., k, 3) and b (..., l, 3).

    Mean squared distance to the nearest point of the other set, both ways added.
    """
    distance = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
    return distance.amin(-1).mean(-1) + distance.amin(-2).mean(-1)


class MaskedReconstruction(nn.Module):
    """Point-MAE around a backbone: encoder on visible tokens, a light decoder on all.

    Args:
        backbone: trained in place; its features are what stays.
        config: mask ratio and decoder.
        generator: of the decoder's initial weights.

    Raises:
        InputError: a mask ratio that leaves no visible or no masked token, or a decoder whose
            heads do not divide the width.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: MaskedConfig,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        shape = backbone.config
        self.masked = int(config.mask_ratio * shape.groups)
        if not 0 < self.masked < shape.groups:
            raise InputError(
                f"mask_ratio {config.mask_ratio} of {shape.groups} tokens hides {self.masked}; "
                "at least one must be hidden and one visible"
            )
        if shape.dim % config.decoder_heads:
            raise InputError(
                f"decoder_heads must divide dim, got {config.decoder_heads} and {shape.dim}"
            )
        self.mask_token = nn.Parameter(torch.zeros(shape.dim))
        self.decoder_position = Position(shape.dim, shape.position_dim)
        self.decoder = Encoder(
            shape.dim,
            config.decoder_depth,
            config.decoder_heads,
            mlp_ratio=shape.mlp_ratio,
            drop_path=shape.drop_path,
        )
        self.to_points = nn.Linear(shape.dim, 3 * shape.group_size)
        initialise(self, generator=generator)
        nn.init.trunc_normal_(self.mask_token, std=0.02, generator=generator)
        self.backbone = backbone

    def forward(self, groups: Groups, *, generator: torch.Generator | None = None) -> Tensor:
        """Chamfer-L2 between hidden groups and what the decoder makes of them, a scalar.

        Only visible groups are tokenized: the tokens of the others would be thrown away.

        Args:
            groups: of training clouds.
            generator: of masks and dropout; None = torch's default one.
        """
        batch, count = groups.centers.shape[:2]
        visible, hidden = random_mask(
            batch, count, self.masked, device=groups.centers.device, generator=generator
        )
        rows = torch.arange(batch, device=visible.device)[:, None]
        seen = Groups(*(part[rows, visible] for part in groups))
        embedded = self.backbone.embed_groups(seen, generator=generator)
        encoded = self.backbone.encoder(*embedded, generator=generator)
        blank = self.mask_token.to(encoded.dtype).expand(batch, self.masked, -1)
        centers = gather(groups.centers, torch.cat([visible, hidden], dim=1))
        decoded = self.decoder(
            torch.cat([encoded, blank], dim=1), self.decoder_position(centers), generator=generator
        )
        rebuilt = self.to_points(decoded[:, -self.masked :]).float().unflatten(-1, (-1, 3))
        return chamfer(rebuilt, groups.neighborhoods[rows, hidden][..., :3].float()).mean()
