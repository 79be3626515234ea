"""Performance targets of the inference form, and whether the rows of a run meet them.

Ratios are within one run, relative to the fastest plain form of the teacher at the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]


class Target(NamedTuple):
    """A performance target.

    Attributes:
        what: what is measured, in words.
        reach: the target value.
        unit: shown after numbers. Ratios (x) and shares (%) are lower bounds, others upper ones.
        key: of the number in a row.
        rows: whether a row counts.
    """

    what: str
    reach: float
    unit: str
    key: str
    rows: Callable[[Row], bool]

    @property
    def least(self) -> bool:
        """Whether the value is a lower bound."""
        return self.unit in ("x", "%")

    def value(self, row: Row) -> float | None:
        """The number of a row in the unit; None = not measured."""
        value = row.get(self.key)
        return 100 * value if self.unit == "%" and value is not None else value


def _object(supertokens: int, precision: str) -> Callable[[Row], bool]:
    def holds(row: Row) -> bool:
        sizes = (row.get("clouds"), row.get("points"), row.get("tokens"), row.get("dim"))
        return (
            row["bench"] == "objects"
            and row["form"] == "compiled"
            and row["precision"] == precision
            and row["supertokens"] == supertokens
            and not row["gate"]
            and not row["light"]
            and sizes == (64, 1024, 64, 384)
        )

    return holds


def _light(row: Row) -> bool:
    sizes = (row.get("clouds"), row.get("points"))
    return row["bench"] == "objects" and row["light"] and sizes == (64, 1024)


def _scene(points: int, kind: str, precision: str | None = None) -> Callable[[Row], bool]:
    def holds(row: Row) -> bool:
        known = row["bench"] in ("scene", "scaling") and row.get("sweep") != "tokens"
        wanted = known and (row.get("form"), row.get("points")) == (kind, points)
        return wanted and precision in (None, row["precision"])

    return holds


def _scaling(row: Row) -> bool:
    kind = ("fit", "scene points, time", "streamed")
    return (row["bench"], row.get("of"), row.get("form")) == kind


SCENE, LARGE = 2**18, 10**6
TARGETS = (
    Target("s=16, fp32", 4.5, "x", "ratio", _object(16, "fp32")),
    Target("s=16, bf16", 7.5, "x", "ratio", _object(16, "bf16")),
    Target("s=1, fp32", 6.5, "x", "ratio", _object(1, "fp32")),
    Target("s=1, bf16", 11, "x", "ratio", _object(1, "bf16")),
    Target("a light tokenizer, any s", 15, "x", "ratio", _light),
    Target(
        "share of the matrix-product floor, fp32, s=16", 80, "%", "floor_share", _object(16, "fp32")
    ),
    Target("scene of 2^18 points, geometry", 0.12, " s", "median_s", _scene(SCENE, "geometry")),
    Target(
        "scene of 2^18 points, s=16, bf16", 0.7, " s", "median_s", _scene(SCENE, "streamed", "bf16")
    ),
    Target(
        "scene of 2^18 points, s=16, fp32", 1.1, " s", "median_s", _scene(SCENE, "streamed", "fp32")
    ),
    Target("scene of 2^18 points, peak memory", 1000, " MB", "peak_mb", _scene(SCENE, "streamed")),
    Target("1,000,000 points, peak memory", 1500, " MB", "peak_mb", _scene(LARGE, "streamed")),
    Target(
        "scenes over their points, exponent of time (N log N: 1.09)", 1.1, "", "exponent", _scaling
    ),
)


def target_rows(rows: Sequence[Row]) -> list[Row]:
    """A row for every target that was measured: `what, reach, reached, met`, and by which `row`.

    Where several rows count, the best one is taken; for memory and exponents the worst.
    """
    found = []
    for target in TARGETS:
        values = [
            (value, row["name"])
            for row in rows
            if target.rows(row) and (value := target.value(row)) is not None
        ]
        if not values:
            continue
        worst = not target.least and target.unit != " s"
        reached, name = (max if target.least or worst else min)(values)
        met = reached >= target.reach if target.least else reached <= target.reach
        found.append(
            {
                "what": target.what,
                "reach": f"{target.reach:g}{target.unit}",
                "reached": f"{reached:.3g}{target.unit}",
                "met": "yes" if met else "no",
                "row": name,
            }
        )
    return found
