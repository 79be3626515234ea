"""A short part of every attack of `make chaos`."""

from pathlib import Path

import pytest
from chaos import mutations


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    report = mutations.attack(tmp_path, count=12, seed=1)
    assert report.faults == []
    assert report.counts.total() == 12 * len(mutations.SEEDS)
