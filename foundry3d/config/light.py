"""A student's lighter tokenizer: narrower, fewer points a group, learned from the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

from foundry3d.config.records import require


def check_widths(widths: tuple[int, ...]) -> None:
    """Requires widths that a tokenizer can have."""
    require(
        len(widths) in (2, 3) and min(widths) > 0,
        f"point_widths are two or three positive widths, got {widths}",
    )


@dataclass(frozen=True, kw_only=True)
class LightTokenizerConfig:
    """The student's tokenizer, where it is not a copy of the teacher's.

    Attributes:
        point_widths: its hidden widths, see `BackboneConfig`; other ones than the teacher's start
            from scratch. null = the teacher's.
        group_size: points of a token that the student reads, the nearest of those that the
            teacher reads; null = as many.
        epochs: first epochs in which nothing but the tokenizer trains, its tokens against the
            teacher's (smooth L1). No encoder runs in them.
        weight: of that token loss beside the one of the features afterwards; 0 = features alone.
    """

    point_widths: tuple[int, ...] | None = None
    group_size: int | None = None
    epochs: int = 0
    weight: float = 0.0

    def __post_init__(self) -> None:
        if self.point_widths is not None:
            check_widths(self.point_widths)
        require(
            self.group_size is None or self.group_size > 0,
            f"group_size must be positive or null, got {self.group_size}",
        )
        require(self.epochs >= 0, f"epochs must be >= 0, got {self.epochs}")
        require(0 <= self.weight < float("inf"), f"weight must not be negative, got {self.weight}")

    @property
    def matches_tokens(self) -> bool:
        """Whether the student's tokens are compared with the teacher's at any time."""
        return self.epochs > 0 or self.weight > 0
