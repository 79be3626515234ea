"""Merging inside an encoder: the merged tokens, the learned merger and the reduce hook.

Shapes: B clouds, c tokens of the tokenizer, n tokens of a block, m after merging, d width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from foundry3d.baselines.matching import (
    cluster,
    energy_matching,
    merge,
    merged_sizes,
    nearest_seed,
    soft_matching,
)
from foundry3d.baselines.sampling import random_choice
from foundry3d.config import ReductionConfig
from foundry3d.geometry import gather
from foundry3d.models.vit import State


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """The tokens left in a block, and which of them holds each original token; no class token.

    Attributes:
        tokens: (B, n, d).
        positions: (B, n, d).
        centers: (B, n, 3) mean center of the original tokens in each.
        sizes: (B, n) how many original tokens are in each; 0 = an empty cluster, hidden from
            attention (a query of PatchMerger is never hidden, even if it is no token's source).
        source: (B, c) int64, the row that holds each of the c original tokens.
    """

    tokens: Tensor
    positions: Tensor
    centers: Tensor
    sizes: Tensor
    source: Tensor

    def merged(self, target: Tensor, left: int) -> Reduction:
        """Merges tokens into m = `left` rows by a target (B, n), as size-weighted means."""
        return Reduction(
            tokens=merge(self.tokens, target, left, self.sizes),
            positions=merge(self.positions, target, left, self.sizes),
            centers=merge(self.centers, target, left, self.sizes),
            sizes=merged_sizes(target, left, self.sizes),
            source=target.gather(1, self.source),
        )

    def spread(self, values: Tensor) -> Tensor:
        """(B, c, d): for each original token, the row of values (B, n, d) that holds it."""
        return gather(values, self.source)


class PatchMerger(nn.Module):
    """Learned queries that each take a softmax-weighted mean of the layer-normed tokens.

    Y = softmax(Q LN(X)^T / sqrt(d)) LN(X) (PatchMerger, Section 3, as attention with d-wide
    queries). Positions and centers are averaged with the same weights.

    Args:
        dim: d.
        queries: m, the number of tokens that are left.
    """

    def __init__(self, dim: int, queries: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(queries, dim)))

    def forward(self, before: Reduction) -> Reduction:
        """The m merged tokens; a token's source is the query that gives it the largest weight."""
        normed = self.norm(before.tokens)
        weights = (self.queries @ normed.mT * normed.shape[-1] ** -0.5).softmax(dim=-1)
        target = weights.argmax(dim=1)
        return Reduction(
            tokens=weights @ normed,
            positions=weights @ before.positions,
            centers=weights.detach().to(before.centers.dtype) @ before.centers,
            sizes=merged_sizes(target, len(self.queries), before.sizes),
            source=target.gather(1, before.source),
        )


class Trace:
    """The reduce hook of one forward pass; it keeps the sizes and sources of the merged tokens.

    Args:
        config: method and seed.
        left: tokens left after each block.
        start: the tokens as they enter the encoder.
        first: number of class tokens in front of them, 0 or 1.
        generator: source of random samples; None = the seed of the configuration.
    """

    def __init__(
        self,
        config: ReductionConfig,
        left: tuple[int, ...],
        start: Reduction,
        *,
        first: int,
        generator: torch.Generator | None,
    ) -> None:
        self.config, self.left, self.first = config, left, first
        self.now, self.generator = start, generator

    def __call__(self, layer: int, state: State, keys: Tensor) -> State:
        """Merges the tokens of a block by its keys (B, n, d/h); see `vit.Reduce`."""
        left = self.left[layer]
        if left == self.now.sizes.shape[1]:
            return state
        self.follow(state)
        target = self.target(layer, keys[:, self.first :].detach().float(), left)
        self.now = self.now.merged(target, left)
        return self.state(state, bias=self.now.sizes.log())

    def follow(self, state: State) -> Reduction:
        """Takes over the tokens and positions of a state, and returns the reduction."""
        tokens, positions = state.tokens[:, self.first :], state.positions[:, self.first :]
        self.now = replace(self.now, tokens=tokens, positions=positions)
        return self.now

    def state(self, before: State, *, bias: Tensor | None) -> State:
        """The state to continue with: the reduction behind the class token of the state before.

        A bias (B, n) of log sizes makes attention proportional to size (ToMe, equation 1).
        """
        tokens = torch.cat([before.tokens[:, : self.first], self.now.tokens], dim=1)
        positions = torch.cat([before.positions[:, : self.first], self.now.positions], dim=1)
        if bias is not None:
            bias = torch.cat([bias.new_zeros(bias.shape[0], self.first), bias], dim=1)
        return State(tokens=tokens, positions=positions, bias=bias)

    def target(self, layer: int, keys: Tensor, left: int) -> Tensor:
        """(B, n) row that each token is merged into."""
        centers, sizes = self.now.centers.detach(), self.now.sizes
        match self.config.method:
            case "tome":
                return soft_matching(keys, left)
            case "pitome":
                return energy_matching(keys, left, 0.9 - 0.9 * layer / len(self.left))
            case "kmeans":
                return cluster(centers, left, iterations=self.config.iterations, sizes=sizes)
            case "fps":
                return cluster(centers, left, iterations=0, sizes=sizes)
            case "random":
                batch, count, _ = centers.shape
                own = self.generator or torch.Generator().manual_seed(self.config.seed)
                chosen = random_choice(batch, count, left, device=centers.device, generator=own)
                return nearest_seed(centers, gather(centers, chosen))
        raise AssertionError(f"{self.config.method} does not merge by the hook")
