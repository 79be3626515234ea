"""A network as a program that `torch.export` saved, with its description in a file beside it.

With the geometry inside, foundry3d has to be installed and imported where it is loaded, because it
holds the operators for sampling and neighbours. With the geometry outside torch alone loads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from foundry3d.export.network import Network, exported_program
from foundry3d.export.runners import Arrays
from foundry3d.writing import write_text


def write(network: Network, path: Path, precision: str, samples: Iterable[Arrays]) -> None:
    """Writes a network in fp32, the only precision of this format."""
    torch.export.save(exported_program(network), path)


def describe(path: Path, metadata: dict[str, Any]) -> None:
    """Writes metadata into NAME.json beside the file NAME."""
    write_text(path.with_name(f"{path.name}.json"), json.dumps(metadata, indent=2) + "\n")
