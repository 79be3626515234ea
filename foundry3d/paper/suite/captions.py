"""What stands below a table: how its numbers were measured, and whose the paper's are."""

from __future__ import annotations

from typing import Any

from foundry3d.checkpoints.folder import model_folder, read_config
from foundry3d.config import SuiteConfig
from foundry3d.paper.suite.models import model_path
from foundry3d.paper.suite.printed import TEACHER

CAPTION = (
    "Scores in percent on test clouds, at the epoch selected on held-out training clouds; mean ± "
    "sample standard deviation over seeds and times of unfreezing (few-shot: folds, last epoch); "
    "[n/m] = n of m runs are done. GMACs per cloud, tokenizer included, heads and grouping not."
)
PAPERS = (
    "In parentheses the paper's number for the column, of its own models: Point-JEPA's ViT-S of 64 "
    "tokens and its students, distilled on ShapeNet55, at the epoch that is best on test."
)


def teacher_text(config: SuiteConfig) -> str:
    """A sentence on the sizes of the suite's teacher; empty where it is not there to be read."""
    folder = model_folder(model_path(config, "teacher"))
    if not (folder / "config.json").is_file():
        return ""
    sizes: dict[str, Any] = read_config(folder)["config"]
    if any(name not in sizes for name in TEACHER):
        return ""
    like = " (the paper's sizes)" * all(sizes[name] == value for name, value in TEACHER.items())
    return (
        f"Teacher of this table: {sizes['depth']} blocks of width {sizes['dim']}, "
        f"{sizes['groups']} tokens of {sizes['group_size']} points{like}."
    )


def caption_of(config: SuiteConfig, *, compared: bool, measured: str = CAPTION) -> str:
    """The caption of a table; compared = it shows numbers of the paper."""
    return " ".join(filter(None, [measured, PAPERS * compared, teacher_text(config)]))
