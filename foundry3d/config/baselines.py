"""The baselines: token reducers inside the encoder, FPS-Student and KMeans-Student."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import repeat
from typing import Literal, get_args

from foundry3d.config.models import BackboneConfig
from foundry3d.config.records import not_negative, positive, require

Method = Literal["tome", "pitome", "patchmerger", "kmeans", "fps", "random"]
MATCHING = ("tome", "pitome")


@dataclass(frozen=True, kw_only=True)
class ReductionConfig:
    """How tokens are merged, and how many are left after each block.

    Exactly one of `reach`, `removed`, `left` and `ratio` is given; blocks beyond the end of a list
    merge nothing. A class token is never counted and never merged.

    Attributes:
        method: tome (bipartite soft matching), pitome (energy score), patchmerger (learned
            queries between two blocks), or clusters of the tokens' centers: kmeans, fps
            (each joins the nearest of a farthest point sample), random (of a random sample).
        reach: halve the tokens block by block until this many are left; for patchmerger, which
            takes no other schedule, the number of queries.
        removed: tokens removed in each block; (32, 16) is how the paper goes from 64 to 16.
        left: tokens left after each block.
        ratio: share of the tokens that each block keeps, rounded up (PiToMe).
        after: patchmerger: number of blocks before it; None = half of the depth.
        iterations: kmeans: Lloyd iterations, from a farthest point sample.
        seed: random: of the sample in evaluation mode, which is the same at every call.
    """

    method: Method = "tome"
    reach: int | None = None
    removed: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    ratio: tuple[float, ...] = ()
    after: int | None = None
    iterations: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        known = get_args(Method)
        require(self.method in known, f"method is one of {', '.join(known)}; got {self.method!r}")
        given = [n for n in ("removed", "left", "ratio") if getattr(self, n)]
        given += ["reach"] if self.reach is not None else []
        require(
            len(given) == 1,
            f"give exactly one of reach, removed, left and ratio, got {given or 'none'}",
        )
        require(self.reach is None or self.reach > 0, f"reach must be positive, got {self.reach}")
        require(
            all(0 < share <= 1 for share in self.ratio),
            f"ratio holds shares in (0, 1], got {self.ratio}",
        )
        learned = self.method == "patchmerger"
        require(not learned or self.reach is not None, "patchmerger takes reach, its queries")
        require(learned or self.after is None, f"after is for patchmerger, not for {self.method}")
        positive(self, "iterations")
        not_negative(self, "seed")

    def merger_after(self, depth: int) -> int:
        """Number of blocks before the patchmerger in an encoder of this depth."""
        return depth // 2 if self.after is None else self.after

    def schedule(self, tokens: int, depth: int) -> tuple[int, ...]:
        """Tokens left after each block of an encoder of this depth that starts with `tokens`.

        Raises:
            InputError: a list longer than the depth, a block that would leave none or more than
                there are, a matching that would remove more than half of them in one block, or a
                reach that needs more blocks.
        """
        if self.method == "patchmerger":
            return self._learned(tokens, depth)
        steps = max(len(self.removed), len(self.left), len(self.ratio))
        require(steps <= depth, f"the schedule has {steps} blocks, the encoder {depth}")
        counts, now = [], tokens
        for layer in range(depth):
            then = self._then(layer, now)
            require(
                1 <= then <= now,
                f"block {layer} would go from {now} to {then} tokens; leave 1 to {now}",
            )
            require(
                self.method not in MATCHING or then >= math.ceil(now / 2),
                f"{self.method} removes at most half of the tokens in a block, asked in block "
                f"{layer} to go from {now} to {then}",
            )
            counts.append(then)
            now = then
        require(
            self.reach is None or now == min(tokens, self.reach),
            f"halving {tokens} tokens in {depth} blocks ends at {now}, not at {self.reach}",
        )
        return tuple(counts)

    def _then(self, layer: int, now: int) -> int:
        if self.reach is not None:
            return max(math.ceil(now / 2), min(now, self.reach))
        if layer < len(self.removed):
            return now - self.removed[layer]
        if layer < len(self.left):
            return self.left[layer]
        if layer < len(self.ratio):
            return math.ceil(round(now * self.ratio[layer], 6))
        return now

    def _learned(self, tokens: int, depth: int) -> tuple[int, ...]:
        after, queries = self.merger_after(depth), self.reach or 0
        require(0 < after < depth, f"after must lie in 1..{depth - 1} blocks, got {after}")
        require(queries <= tokens, f"reach must lie in 1..{tokens} (the tokens), got {queries}")
        return (*repeat(tokens, after), *repeat(queries, depth - after))


@dataclass(frozen=True, kw_only=True)
class MergedConfig:
    """A backbone whose encoder merges tokens.

    Attributes:
        backbone: tokenizer, position, encoder.
        reduction: method and schedule.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    reduction: ReductionConfig = field(default_factory=lambda: ReductionConfig(reach=16))

    def __post_init__(self) -> None:
        self.reduction.schedule(self.backbone.groups, self.backbone.depth)

    @property
    def supertokens(self) -> int:
        """Tokens that leave the encoder."""
        return self.reduction.schedule(self.backbone.groups, self.backbone.depth)[-1]


@dataclass(frozen=True, kw_only=True)
class FPSStudentConfig:
    """A student that tokenises fewer, larger groups (FPS-Student).

    Attributes:
        backbone: sizes; features are returned for its c groups.
        supertokens: c2, the number of groups that are tokenised and encoded, at the first c2 of the
            c centers.
        points: N, points per cloud, which gives their size k2 = 2 N / c2.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    supertokens: int = 16
    points: int = 1024

    def __post_init__(self) -> None:
        positive(self, "points")
        count, groups = self.supertokens, self.backbone.groups
        require(1 <= count <= groups, f"supertokens must lie in 1..{groups}, got {count}")


@dataclass(frozen=True, kw_only=True)
class KMeansStudentConfig:
    """A frozen backbone that replaces each token by the nearest of s prototypes (KMeans-Student).

    Attributes:
        backbone: tokenizer, position, encoder.
        supertokens: s, the number of prototypes, shared by all clouds.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    supertokens: int = 16

    def __post_init__(self) -> None:
        positive(self, "supertokens")
