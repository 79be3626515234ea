"""Point-JEPA: predict the features of hidden blocks of tokens from a visible context block.

Tokens are put in a greedy spatial order, so that a contiguous run is a region. Ratios and places
of all blocks are drawn per cloud; runs of unequal length are padded and hidden
(`docs/method.md`, "Point-JEPA").

Shapes: B clouds, c tokens, M target blocks, t tokens of the longest block, d width.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.config import JepaConfig
from foundry3d.geometry import Groups, gather, greedy_order
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.supertokens import SupertokenEncoder, key_bias
from foundry3d.models.tokenizer import Position
from foundry3d.models.vit import Encoder, initialise


def _draw(
    shape: tuple[int, ...], low: float, high: float, device: torch.device, g: torch.Generator | None
) -> Tensor:
    return torch.rand(shape, device=device, generator=g) * (high - low) + low


def target_masks(
    batch: int,
    tokens: int,
    config: JepaConfig,
    *,
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """Contiguous target blocks (B, M, c) bool over ordered tokens.

    One length per cloud, shared by its blocks; every block at its own place.
    """
    length = (_draw((batch, 1), *config.target_ratio, device, generator) * tokens).long()
    length = length.clamp(1, tokens - 1)
    place = _draw((batch, config.target_blocks), 0.0, 1.0, device, generator)
    start = (place * (tokens - length + 1)).long()[..., None]
    index = torch.arange(tokens, device=device)
    return (index >= start) & (index < start + length[..., None])


def context_mask(
    targets: Tensor, config: JepaConfig, *, generator: torch.Generator | None
) -> Tensor:
    """The context (B, c) bool: a contiguous run of the tokens that no target covers.

    Args:
        targets: (B, M, c) bool; where they cover every token of a cloud, its context is the
            tokens that the fewest targets cover.
        config: the range of the share taken.
        generator: of the draws.
    """
    cover = targets.sum(dim=1)
    free = cover == cover.amin(dim=1, keepdim=True)
    left = free.sum(dim=1, keepdim=True)
    batch = len(free)
    share = _draw((batch, 1), *config.context_ratio, targets.device, generator)
    length = (share * left).long().clamp_min(1)
    start = (_draw((batch, 1), 0.0, 1.0, targets.device, generator) * (left - length + 1)).long()
    rank = free.cumsum(dim=1) - 1
    return free & (rank >= start) & (rank < start + length)


def padded(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (..., t) of the true entries of mask (..., c), in order, and which are real.

    t is the largest count of any row; rows with fewer are filled with other indices.
    """
    longest = int(mask.sum(dim=-1).amax())
    index = mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :longest]
    return index, mask.gather(-1, index)


class Predictor(nn.Module):
    """Predicts target features from context features and the centers of both.

    Args:
        dim: d of the encoder.
        config: the predictor's sizes.
        position_dim: hidden width of its position MLP.
    """

    def __init__(self, dim: int, config: JepaConfig, position_dim: int) -> None:
        super().__init__()
        width = config.predictor_dim
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.position = Position(width, position_dim)
        self.encoder = Encoder(
            width,
            config.predictor_depth,
            config.predictor_heads,
            dropout=config.predictor_dropout,
            attention_dropout=config.predictor_attention_dropout,
            drop_path=config.predictor_drop_path,
            constant_drop_path=True,
        )
        self.project = nn.Linear(width, dim)

    def forward(
        self,
        context: Tensor,
        context_centers: Tensor,
        target_centers: Tensor,
        *,
        real: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Predicted features (B, t, d).

        Args:
            context: (B, v, d) encoded context tokens.
            context_centers: (B, v, 3).
            target_centers: (B, t, 3).
            real: (B, v + t) bool, False hides a padded token; None = all are real.
            generator: of dropout.
        """
        count = target_centers.shape[1]
        blank = self.mask_token.expand(len(context), count, -1)
        known = self.embed(context)
        tokens = torch.cat([known, blank.to(known.dtype)], dim=1)
        centers = torch.cat([context_centers, target_centers], dim=1)
        tokens = tokens + self.position(centers)
        bias = None if real is None else key_bias(real, tokens.dtype)
        nothing = torch.zeros((), dtype=tokens.dtype, device=tokens.device)
        mixed = self.encoder(tokens, nothing, bias=bias, generator=generator)
        return self.project(mixed[:, -count:])


class Jepa(nn.Module):
    """Point-JEPA around a backbone, or around a student with DSO and CAU as part of the encoder.

    Args:
        backbone: trained in place; its online weights are what stays. A student (no gate, one
            assignment head, supertokens_after 0) makes the paper's Table 9, which reports that it
            fails.
        config: samplers, predictor, EMA.
        generator: of the predictor's initial weights.
    """

    def __init__(
        self,
        backbone: Backbone | Student,
        config: JepaConfig,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.predictor = Predictor(backbone.shape.dim, config, backbone.shape.position_dim)
        initialise(self, generator=generator)
        self.backbone = backbone
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)

    @property
    def encoder(self) -> Encoder | SupertokenEncoder:
        """What encodes the context, and the target encoder follows."""
        model = self.backbone
        if isinstance(model, Backbone):
            return model.encoder
        return SupertokenEncoder(
            model.dso, model.encoder, model.cau, cau_positions=model.config.cau_positions
        )

    @torch.no_grad()
    def update_target(self, progress: float, *, copy_weights: bool = False) -> float:
        """Moves the target encoder towards the online one.

        Args:
            progress: share of the training done, 0 to 1.
            copy_weights: take the online weights as they are (the first two updates).

        Returns:
            The decay used.
        """
        start, end = self.config.ema_start, self.config.ema_end
        decay = 0.0 if copy_weights else start + (end - start) * progress
        online = self.encoder.parameters()
        for mine, theirs in zip(self.target_encoder.parameters(), online, strict=True):
            mine.lerp_(theirs, 1 - decay)
        return decay

    @torch.no_grad()
    def target_features(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, c, d): last block of the EMA encoder, layer-normed without parameters.

        With supertokens: the output of its CAU, layer-normed in the same way.
        """
        encoder = self.target_encoder.eval()
        if isinstance(encoder, Encoder):
            last = encoder.states(tokens, positions)[-1]
        else:
            last = encoder(tokens, positions)
        return F.layer_norm(last.float(), last.shape[-1:])

    def forward(
        self, groups: Groups, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (a scalar) and the collapse monitors.

        `prediction_std` and `target_std` are standard deviations over the tokens of a batch, the
        mean over features; a collapsing model drives both to zero.
        """
        order = greedy_order(groups.centers)
        rows = torch.arange(len(order), device=order.device)[:, None]
        groups = Groups(gather(groups.centers, order), groups.neighborhoods[rows, order])
        tokens, positions = self.backbone.embed_groups(groups, generator=generator)
        batch, count, _ = tokens.shape
        targets = target_masks(batch, count, self.config, device=tokens.device, generator=generator)
        seen, seen_real = padded(context_mask(targets, self.config, generator=generator))
        context = self.encoder(
            gather(tokens, seen),
            gather(positions, seen),
            bias=key_bias(seen_real, tokens.dtype),
            generator=generator,
        )
        goal = self.target_features(tokens.detach(), positions.detach())
        context_centers = gather(groups.centers, seen)
        losses, predictions, goals = [], [], []
        for block in targets.unbind(1):
            index, real = padded(block)
            predicted = self.predictor(
                context,
                context_centers,
                gather(groups.centers, index),
                real=torch.cat([seen_real, real], dim=1),
                generator=generator,
            ).float()
            predictions.append(predicted[real])
            goals.append(gather(goal, index)[real])
            losses.append(F.smooth_l1_loss(predictions[-1], goals[-1], beta=self.config.beta))
        monitors = {
            "prediction_std": torch.cat(predictions).detach().std(dim=0).mean(),
            "target_std": torch.cat(goals).std(dim=0).mean(),
        }
        return torch.stack(losses).mean(), monitors
