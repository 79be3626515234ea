"""Models that ship with the package: their names stand for folders.

Each is an ordinary checkpoint folder in `foundry3d/zoo`: `config.json`, `model.safetensors` and a
card, `README.md`. `shipping.ship` puts one there.
"""

from __future__ import annotations

import os
from pathlib import Path

ZOO = Path(__file__).parents[1] / "zoo"


def names() -> tuple[str, ...]:
    """The names of the models that ship, sorted."""
    return tuple(sorted(path.parent.name for path in ZOO.glob("*/config.json")))


def shipped(path: str | Path) -> Path | None:
    """The folder of the shipped model that a path names.

    None where no model ships under that name, and where the path exists: a file or folder of the
    user comes first.
    """
    name = str(path)
    return ZOO / name if name in names() and not os.path.exists(name) else None


def known() -> str:
    """The names of the models that ship, for messages."""
    return ", ".join(names()) or "none in this installation"
