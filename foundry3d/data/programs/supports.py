"""What carries furniture: legs, panels, sleds and pedestals."""

from __future__ import annotations

from foundry3d.data.programs.parts import Draw, box, post, rod
from foundry3d.data.programs.rows import Row, four, pair, ring


def legs(d: Draw, wide: float, deep: float, tall: float) -> list[Row]:
    """What carries a body of this size whose bottom is at `tall`."""
    if tall < 0.01:
        return []
    thick, style = d(0.012, 0.05), d.random()
    x, y = wide / 2 - thick * d(1.0, 2.5), deep / 2 - thick * d(1.0, 2.5)
    if style < 0.3:
        return four([box(x, y, 0.0, thick * 2, thick * 2, tall)])
    if style < 0.5:
        splay = d(-0.02, 0.12)
        foot = (x + splay, y + splay, 0.0)
        return four([rod(foot, (x, y, tall), thick * d(0.5, 1.0), top=d(0.8, 1.8))])
    if style < 0.62:
        return pair([box(x, 0.0, 0.0, thick * 2, deep * d(0.7, 1.0), tall)])
    if style < 0.8:
        return pedestal(d, min(wide, deep) / 2, tall)
    if style < 0.9:  # sleds
        runners = pair([box(x, 0.0, 0.0, thick * 1.5, deep, thick)])
        return runners + four([box(x, y, thick, thick * 1.5, thick * 1.5, tall - thick)])
    rails = pair([rod((-x, y, tall * 0.25), (x, y, tall * 0.25), thick * 0.6)], 1)
    return four([post(x, y, 0.0, thick, tall, corners=d.pick((0, 4, 6)))]) + rails


def pedestal(d: Draw, reach: float, tall: float) -> list[Row]:
    """A column on a disc, a star of feet or a cone."""
    rows = [post(0.0, 0.0, 0.0, d(0.02, 0.07), tall)]
    style = d.random()
    if style < 0.4:
        rows.append(post(0.0, 0.0, 0.0, reach * d(0.5, 0.95), d(0.015, 0.05), top=d(0.6, 1.0)))
    elif style < 0.8:
        high, far = tall * d(0.05, 0.3), reach * d(0.7, 1.0)
        rows += ring([rod((0.0, 0.0, high), (far, 0.0, 0.02), 0.025)], d.whole(3, 6))
    else:
        rows.append(post(0.0, 0.0, 0.0, reach * d(0.4, 0.8), tall, top=d(0.1, 0.6)))
    return rows
