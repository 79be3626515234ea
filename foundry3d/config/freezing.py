"""What "frozen" means: the same words in distillation and in fine-tuning.

A model that started from a teacher has three parts of it: tokenizer, position MLP and encoder
(blocks and final norm, a class token included). `encoder` freezes the encoder, the paper's words;
`all` freezes the three, with their BatchNorm statistics; `none` freezes nothing. What is new in a
model (DSO, CAU, gate, head, Linear layers that change the width) always trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from foundry3d.config.records import require

Frozen = Literal["encoder", "all", "none"]
Epoch = int | Literal["auto"] | None
Limits = Mapping[str, int | None]
"""For each of `PARTS` the epoch from which it trains; None = never."""

PARTS = ("tokenizer", "position", "encoder")
FROZEN: dict[str, tuple[str, ...]] = {"encoder": ("encoder",), "all": PARTS, "none": ()}
"""The parts that each word freezes."""
PUBLISHED = 50
"""The epoch from which the paper's distillation trains the encoder (Table 15)."""


def limits_of(frozen: str, epoch: int | None = None) -> dict[str, int | None]:
    """The epoch from which each part trains: `epoch` for what is frozen (None = never), or 0.

    Raises:
        InputError: frozen is not encoder, all or none.
    """
    require(frozen in FROZEN, f"frozen is one of {', '.join(FROZEN)}; got {frozen!r}")
    return {part: epoch if part in FROZEN[frozen] else 0 for part in PARTS}


def words_of(limits: Limits, epochs: int) -> str:
    """What a run of this many epochs freezes, e.g. `all` or `encoder until epoch 50`."""
    groups: dict[str, list[str]] = {}
    for part, epoch in limits.items():
        if epoch != 0:
            until = "" if epoch is None or epoch >= epochs else f" until epoch {epoch}"
            groups.setdefault(until, []).append(part)
    names = {
        until: "all" if len(parts) == len(PARTS) else " and ".join(parts)
        for until, parts in groups.items()
    }
    return ", ".join(name + until for until, name in names.items()) or "none"
