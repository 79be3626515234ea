from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from foundry3d.report.figures import draw_grid


def test_a_figure_that_is_interrupted_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = np.random.default_rng(0).normal(size=(1, 30, 3))
    columns = {"one": np.zeros((1, 30, 3))}
    path = draw_grid(tmp_path / "a.png", points, list(columns.items()), rows=["cloud"], title="t")
    whole = path.read_bytes()
    assert whole.endswith(b"IEND\xaeB`\x82")

    def interrupted(self: Figure, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_grid(path, points, list(columns.items()), rows=["cloud"], title="t")
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
