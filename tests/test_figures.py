from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from foundry3d.report import figures, scatter
from foundry3d.report.figures import Level, Panel, draw_grid, draw_lines
from foundry3d.report.scatter import Mark, draw_scatter


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn; nothing is written."""
    found: list[Figure] = []

    def keep(figure: Figure, path: str | Path) -> Path:
        found.append(figure)
        return Path(path)

    monkeypatch.setattr(figures, "saved", keep)
    monkeypatch.setattr(scatter, "saved", keep)
    return found


def test_line_plots_have_units_bars_levels_and_a_legend(drawn: list[Figure]) -> None:
    curves = {"a": ([2.0, 1.0], [80.0, 70.0])}
    level = {"teacher": Level(90.0, 1.0)}
    panel = Panel("MN40", "epoch", curves, errors={"a": [2.0, None]}, levels=level)
    draw_lines("x.png", [panel] * 5, title="t", y="validation accuracy (%)", ticks=False)
    first, *others = drawn[0].axes
    assert (first.get_xlabel(), first.get_ylabel()) == ("epoch", "validation accuracy (%)")
    legend = first.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "teacher"]
    line, horizontal = (first.get_lines()[i] for i in (0, -1))
    assert line.get_xydata().tolist() == [[1.0, 70.0], [2.0, 80.0]]
    assert list(horizontal.get_ydata()) == [90.0, 90.0]
    assert [segment.tolist() for segment in first.collections[0].get_segments()] == [
        [[2.0, 78.0], [2.0, 82.0]]
    ]
    assert [axes.get_ylabel() for axes in others] == ["", "", "", "validation accuracy (%)"]
    alone = {"a": ([1.0], [1.0])}
    draw_lines("x.png", [("", "epoch", alone)], title="t", y="y")
    assert drawn[1].axes[0].get_legend() is None


def test_scatter_plots_explain_shapes_colours_and_sizes(drawn: list[Figure]) -> None:
    marks = [
        Mark(0.1, 80.0, "MN40", "frozen", "s = 1", 1.0),
        Mark(0.2, 70.0, "MN40", "not frozen", "s = 4"),
        Mark(0.2, 60.0, "SN55", "not frozen", "s = 4"),
    ]
    sizes, headings = ("s = 1", "s = 2", "s = 4"), ("data", "encoder", "supertokens")
    draw_scatter("x.png", marks, title="t", x="loss", y="y", sizes=sizes, headings=headings)
    (axes,) = drawn[0].axes
    legends = [part for part in axes.artists if isinstance(part, Legend)]
    assert [legend.get_title().get_text() for legend in legends] == list(headings)
    texts = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert texts == [["MN40", "SN55"], ["frozen", "not frozen"], ["s = 1", "s = 4"]]
    points = [line for line in axes.get_lines() if line.get_marker() in ("o", "s")]
    assert [point.get_marker() for point in points] == ["o", "o", "s"]
    assert points[0].get_markersize() < points[1].get_markersize() == points[2].get_markersize()
    assert points[1].get_color() == points[2].get_color() != points[0].get_color()


def test_the_same_figure_is_the_same_svg(tmp_path: Path) -> None:
    curves = {"a": ([1.0, 2.0], [3.0, 4.0]), "b": ([1.0], [2.0])}
    paths = [tmp_path / name for name in ("a.svg", "b.svg")]
    for path in paths:
        draw_lines(path, [("", "x", curves)], title="t", y="y")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_text().startswith("<?xml")


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
