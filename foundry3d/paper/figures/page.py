"""One figure as PNG and SVG with its caption inside, and the file of all captions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from foundry3d.writing import replacing, write_text

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "foundry3d",  # the same picture has the same bytes
    "savefig.dpi": 300,
}


@contextmanager
def page(out: Path, name: str, size: tuple[float, float], caption: str) -> Iterator[Figure]:
    """Yields an empty figure, which is written as PNG and SVG when the block ends.

    Each file appears complete or not at all, and holds the caption as its description; the caption
    is also written to `captions.md` in the same folder.

    Args:
        out: folder; made where it is missing.
        name: of the files, without ending.
        size: inches.
        caption: what is shown, and by which protocol.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        about: dict[str, Any] = {"Title": name, "Description": caption}
        for kind, metadata in {"png": about, "svg": about | {"Date": None}}.items():
            with replacing(out / f"{name}.{kind}") as partial:
                figure.savefig(partial, format=kind, metadata=metadata)
    write_caption(out / "captions.md", name, caption)


def write_caption(path: Path, name: str, caption: str) -> None:
    """Adds a caption to a file of captions, in place of an earlier one of the same figure."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = dict(re.findall(r"^## (\S+)\n\n(.*?)\n(?=\n## |\Z)", before, re.DOTALL | re.MULTILINE))
    sections = found | {name: caption}
    text = "".join(f"\n## {key}\n\n{value}\n" for key, value in sorted(sections.items()))
    write_text(path, "# Captions\n" + text)
