"""Result rows: numbers with their protocol, appended to JSON lines and shown as tables."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foundry3d.errors import InputError


def code_version() -> str:
    """The version of the package, with the commit if it runs from a git checkout."""
    try:
        number = version("foundry3d")
    except PackageNotFoundError:
        number = "unknown"
    here = Path(__file__).parent
    try:
        asked = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=10"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return number
    return f"{number} ({asked.stdout.strip()})" if asked.returncode == 0 else number


def append(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Appends rows to a JSON-lines file, which is created if it is missing.

    An incomplete last line, left by an interrupted process, is overwritten.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; none if it is missing.

    An incomplete last line, left by an interrupted process, is skipped.

    Raises:
        InputError: another line is not a JSON object.
    """
    path = Path(path)
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            raise InputError(f"{path}, line {number}: expected a result row, got {line[:60]!r}")
    return rows


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return str(value)


def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    """A Markdown table of the named columns, aligned so that it also reads well as plain text.

    Args:
        rows: result rows; a missing value is shown as "-".
        columns: headings by key.
    """
    texts = [list(columns.values())] + [[_text(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in texts) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in texts
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
