"""Result rows: numbers with their protocol, appended to JSON lines and shown as tables."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foundry3d.errors import InputError
from foundry3d.writing import held


def _own_checkout(root: Path) -> bool:
    """Whether a folder is a git checkout of this package."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text()).get("project")
    except (OSError, ValueError):
        return False
    named = isinstance(project, dict) and project.get("name") == "foundry3d"
    return named and (root / ".git").exists()


def package_version() -> str:
    """The installed package's version; "unknown" where it runs without being installed."""
    try:
        return version("foundry3d")
    except PackageNotFoundError:
        return "unknown"


def code_version() -> str:
    """The package's version, with the commit where it runs from its own git checkout.

    Git is asked about no other repository, and with the programs that a repository's settings
    can name switched off.
    """
    number = package_version()
    root = Path(__file__).parents[2]
    if not _own_checkout(root):
        return number
    command = [
        "git",
        "-C",
        str(root),
        "-c",
        "core.fsmonitor=false",
        "-c",
        f"core.hooksPath={os.devnull}",
    ]
    others = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        asked = subprocess.run(
            [*command, "describe", "--always", "--dirty", "--abbrev=10"],
            env=others | {"GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return number
    return f"{number} ({asked.stdout.strip()})" if asked.returncode == 0 else number


def append(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Appends rows to a JSON-lines file, which is created if it is missing.

    Processes that append to the same file wait for each other. A row whose `run` is in the file
    already is not added again. An incomplete last line, left by an interrupted process, is
    overwritten; on a full disk the file stays as it was.
    """
    path = Path(path)
    with held(path, wait=True), open(path, "ab+", buffering=0) as file:
        file.seek(0)
        content = file.read()
        end = content.rfind(b"\n") + 1
        new = [row for row in rows if "run" not in row or _named(row["run"]) not in content[:end]]
        left = "".join(json.dumps(row) + "\n" for row in new).encode()
        file.truncate(end)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _named(run: str) -> bytes:
    return f'"run": {json.dumps(run)}'.encode()


def read_rows(path: str | Path, *, keys: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, none where it is missing.

    An incomplete last line, left by an interrupted process, is skipped.

    Args:
        path: of the file.
        keys: what every row must have.

    Raises:
        InputError: another line is not a JSON object in UTF-8, or lacks one of the keys.
    """
    path = Path(path)
    lines = path.read_bytes().splitlines() if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and all(key in row for key in keys):
            rows.append(row)
        elif number < len(lines) or isinstance(row, dict):
            wanted = f" with {', '.join(keys)}" if keys else ""
            raise InputError(
                f"{path}, line {number}: expected a result row{wanted}, got "
                f"{line[:60].decode(errors='replace')!r}; remove that line, and what it stood for "
                "is computed again"
            )
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
