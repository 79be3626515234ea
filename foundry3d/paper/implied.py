"""The tokens of Foundry-Gate that the paper's printed costs imply.

How many tokens a gate merges, and how many supertokens they choose, depends on weights and clouds
that were not published. The printed costs determine both: a merged token passes W_K, W_V and the
CAU, a row of the encoder passes all blocks, and the rest of the pass costs the same for every
input. The paper's batches are padded, so the numbers are the largest of any cloud: where one cloud
merges a token and another none, all clouds count one merged token and c + 1 rows in the encoder.

Shapes: c tokens, s supertokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from foundry3d.inference.cost import Cost, count
from foundry3d.models.student import Student

DIGITS = 6
"""Significant digits of the printed costs."""
TOLERANCE = 0.55
"""How far a count may lie from a printed number, in units of its last digit. Rounding once needs
0.5, but some rows were rounded twice: 168.0115 is printed as 168.012, and 156.4635 as 156.464."""


class GateTokens(NamedTuple):
    """What a pass with a gate computes in each cloud of a padded batch.

    Attributes:
        merged: tokens that DSO and CAU read.
        encoded: rows of the encoder, supertokens and tokens that stay.
    """

    merged: int
    encoded: int


class GateCosts:
    """Costs of a student with a gate, by the tokens that a pass computes.

    Args:
        student: with a gate; counted as it is.
        clouds: B.
        tokens: c.
    """

    def __init__(self, student: Student, *, clouds: int, tokens: int) -> None:
        self.clouds, self.tokens, self.student = clouds, tokens, student
        self.counted: dict[GateTokens, Cost] = {}

    def of(self, taken: GateTokens) -> Cost:
        """Cost of a pass that computes these tokens, counted on the module."""
        if taken not in self.counted:
            used = taken.encoded - self.tokens + taken.merged
            self.counted[taken] = count(
                self.student,
                clouds=self.clouds,
                tokens=self.tokens,
                merged=taken.merged,
                used=used,
            )
        return self.counted[taken]

    def implied(
        self, *, macs_g: float, flops_g: float, merged: int | None = None
    ) -> list[GateTokens]:
        """All numbers of tokens whose MACs and FLOPs agree with the printed ones in every digit.

        Args:
            macs_g: printed, in 10^9.
            flops_g: printed, in 10^9.
            merged: tokens merged, where the paper's rule for a token budget gives them; None = any.
        """
        tried = range(self.tokens + 1) if merged is None else (merged,)
        most = self.tokens + self.student.config.supertokens
        macs, flops = self._linear("macs"), self._linear("flops")
        return [
            GateTokens(m, n)
            for m in tried
            for n in range(1, most + 1)
            if agrees(macs(m, n) / 1e9, macs_g) and agrees(flops(m, n) / 1e9, flops_g)
        ]

    def _linear(self, kind: Literal["macs", "flops"]) -> Callable[[int, int], int]:
        """The cost by two slopes: every merged token costs the same, and every encoded one."""
        start = GateTokens(0, self.tokens)
        first, merged, encoded = (
            getattr(self.of(at), kind)
            for at in (start, start._replace(merged=1), start._replace(encoded=self.tokens + 1))
        )
        return lambda m, n: first + m * (merged - first) + (n - self.tokens) * (encoded - first)


def agrees(number: float, printed: float) -> bool:
    """Whether a count is what a printed number of `DIGITS` significant digits stands for."""
    whole = len(str(int(printed)))
    return abs(number - printed) <= TOLERANCE * 10.0 ** (whole - DIGITS)
