"""Tables in files, written whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundry3d.writing import replacing


def write_table(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows with the same keys as .csv, with a line of headings, or else as JSON lines.

    An earlier file is replaced when the new one is complete.
    """
    with (
        replacing(path) as partial,
        open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        if Path(path).suffix.lower() == ".csv":
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
