"""Random programs: what is promised of the clouds, and the mathematics of what they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foundry3d.config import DataConfig
from foundry3d.data.labelled import labelled_splits
from foundry3d.data.loading import load_and_measured, load_part, load_train
from foundry3d.data.parts import part_splits
from foundry3d.data.programs import Programs, program, programs_in
from foundry3d.data.programs.drawing import CELL, aim, cells_of, keep, measure, scatter
from foundry3d.data.programs.numbers import sine
from foundry3d.data.programs.parts import (
    Draw,
    ball,
    blob,
    box,
    hoop,
    lathe,
    post,
    rod,
    sheet,
    spring,
    tube,
)
from foundry3d.data.programs.placing import POSE, WARP, place_cells, pose_points, warp_points
from foundry3d.data.programs.rows import (
    Row,
    cut_of,
    four,
    line,
    mirrored,
    pair,
    ring,
    row_of,
    scaled,
    turned,
)
from foundry3d.data.programs.running import Program, run
from foundry3d.data.programs.sensing import (
    FRAME,
    SENSE,
    depth_image,
    frame_of,
    pick,
    project,
    tolerance,
)
from foundry3d.data.programs.solids import backs_of
from foundry3d.errors import InputError

TAU = 2 * math.pi
UPRIGHT = np.eye(3).ravel()


def cells_and_areas(rows: list[Row], warp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as a table, and their cells with areas."""
    table, cells = np.array(rows), np.empty((2048, CELL))
    cells = cells[: cells_of(table, warp[0] != 0, cells)]
    space, ends = aim(cells)
    place_cells(table, cells, ends, space)
    warp_points(warp, space[2:], space.shape[1])
    measure(table, cells, space[2:])
    return table, cells


def surface(
    rows: list[Row], count: int = 2000, warp: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 3) of rows without sensor or pose, and the row of each."""
    warp = np.zeros(WARP) if warp is None else warp
    table, cells = cells_and_areas(rows, warp)
    space, ends = scatter(cells, count, np.array([seed], np.uint64))
    place_cells(table, cells, ends, space)
    warp_points(warp, space[2:], count)
    owner = np.repeat(cells[:, 0], np.diff(ends, prepend=0)).astype(int)
    return space[2:].T.copy(), owner


# ---- the clouds --------------------------------------------------------------------------------


def test_same_arguments_give_the_same_cloud_in_any_order():
    forwards = [program(3, i, 200) for i in range(12)]
    backwards = [program(3, i, 200) for i in reversed(range(12))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    flat = [cloud.tobytes() for cloud in [*forwards, program(4, 0, 200)]]
    assert len(set(flat)) == 13


def test_shapes_are_those_of_earlier_versions():
    """Machines differ in last bits, which decide over points on the verge of being cut."""
    earlier = np.load(Path(__file__).parent / "data" / "programs.npy")
    found = [[program(seed, i, 12) for i in range(40)] for seed in range(3)]
    equal = np.isclose(found, earlier, rtol=0, atol=1e-4).all(axis=(2, 3))
    assert equal.mean() > 0.9


@pytest.mark.parametrize("points", [1, 33, 512])
def test_clouds_have_the_asked_size_and_fill_the_unit_sphere(points):
    for i in range(60):
        cloud = program(0, i, points)
        assert cloud.shape == (points, 3) and cloud.dtype == np.float32
        assert np.isfinite(cloud).all()
        if points > 1:
            np.testing.assert_allclose(cloud.mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose(np.linalg.norm(cloud, axis=1).max(), 1, rtol=1e-5)
            assert len(np.unique(cloud, axis=0)) == points


def test_numbers_out_of_range_are_refused():
    for bad in ((-1, 0, 8), (0, -1, 8), (0, 0, 0)):
        with pytest.raises(InputError, match="must be at least"):
            program(*bad)


def test_a_sensor_that_sees_nothing_is_left_out():
    shape = Program([ball(0, 0, 0, 1.0)])
    shape.sense[13], shape.sense[14] = 1.0, 5.0  # a hole larger than everything
    assert len(np.unique(run(shape, 64, 0), axis=0)) == 64
    shape.cuts = [cut_of(box(0, 0, -2, 4, 4, 4), 0, 1)]
    np.testing.assert_allclose(np.linalg.norm(run(shape, 500, 0), axis=1), 1, atol=0.1)


def test_a_program_without_any_surface_is_a_ball():
    nothing = Program([box(0, 0, 0, 1, 1, 1, omit=63)])
    np.testing.assert_allclose(np.linalg.norm(run(nothing, 500, 0), axis=1), 1, atol=0.1)


def test_a_shape_whose_faces_are_all_left_out_keeps_one():
    points = program(0, 33834, 1024)  # a pair of boxes
    assert np.isclose(np.linalg.norm(points, axis=1).max(), 1)


# ---- primitives --------------------------------------------------------------------------------

PROFILE = (0.3, 0.0, 0.5, 0.2, 0.4, 0.4, 0.2, 0.6, 0.25, 0.8, 0.5, 0.9, 0.4, 1.1)


def _on_lathe(p: np.ndarray) -> np.ndarray:
    radius, height = np.array(PROFILE).reshape(7, 2).T
    return np.hypot(p[:, 0], p[:, 1]) - np.interp(p[:, 2], height, radius)


def _on_tube(p: np.ndarray) -> np.ndarray:
    return np.hypot(p[:, 1], p[:, 2]) - 0.2


def _on_spring(p: np.ndarray) -> np.ndarray:
    s = np.linspace(0, 1, 6001)
    line_ = np.column_stack([np.cos(3 * TAU * s), np.sin(3 * TAU * s), 2 * (s - 0.5)])
    return np.array([np.sqrt(((q - line_) ** 2).sum(1).min()) - 0.1 for q in p])


ON_SURFACE: dict[str, tuple[Row, Callable[[np.ndarray], np.ndarray], float]] = {
    "box": (
        box(0, 0, -1, 2, 4, 2),
        lambda p: np.abs(p / [1, 2, 1]).max(axis=1) - 1,
        1e-9,
    ),
    "frustum": (
        box(0, 0, 0, 2, 2, 1, top=(0.5, 0.5), omit=3),
        lambda p: np.abs(p[:, :2]).max(axis=1) - (1 - 0.5 * p[:, 2]),
        1e-9,
    ),
    "ball": (ball(0, 0, 0, 1, 2, 3), lambda p: ((p / [1, 2, 3]) ** 2).sum(axis=1) - 1, 1e-6),
    "cylinder": (post(0, 0, 0, 2, 1, omit=3), lambda p: np.hypot(p[:, 0], p[:, 1]) - 2, 1e-6),
    "cone": (
        post(0, 0, 0, 1, 1, top=0.0, omit=1),
        lambda p: np.hypot(p[:, 0], p[:, 1]) - (1 - p[:, 2]),
        1e-6,
    ),
    "torus": (
        hoop(0, 0, 0, 2, 0.5),
        lambda p: np.hypot(np.hypot(p[:, 0], p[:, 1]) - 2, p[:, 2]) - 0.5,
        1e-6,
    ),
    "superquadric": (
        blob(0, 0, 0, 1, 1, 1, 0.5, 0.8),
        lambda p: ((np.abs(p[:, :2]) ** 2.5).sum(axis=1)) ** 1.6 + np.abs(p[:, 2]) ** 4 - 1,
        1e-5,
    ),
    "sweep": (tube((-1, 0, -0.3, 0, 0.3, 0, 1, 0), 0.2, 0.2), _on_tube, 1e-6),
    "helix": (spring(3, 1.0, 0.1, 2.0), _on_spring, 1e-3),
    "lathe": (lathe(PROFILE, smooth=False), _on_lathe, 1e-6),
    "field": (
        sheet(0, 0, 0, 2, 2, waves=(3.0, 1.0, 0.4, 0.2)),
        lambda p: p[:, 2] - 0.2 * np.sin(1.5 * p[:, 0] + 0.5 * p[:, 1] + 0.4),
        1e-6,
    ),
}


@pytest.mark.parametrize("name", ON_SURFACE)
def test_points_lie_on_the_implicit_surface(name):
    row, equation, within = ON_SURFACE[name]
    points, _ = surface([row], 500)
    np.testing.assert_allclose(equation(points), 0, atol=within)


def test_a_polygon_has_straight_sides():
    points, _ = surface([post(0, 0, 0, 1, 1, corners=6, omit=3)], 500)
    sides = np.arange(6) * TAU / 6 + TAU / 12
    reach = (points[:, :2] @ [np.cos(sides), np.sin(sides)]).max(axis=1)
    np.testing.assert_allclose(reach, math.cos(TAU / 12), atol=1e-6)


def test_a_rod_joins_its_ends():
    start, end = np.array([1.0, -2.0, 0.5]), np.array([-1.0, 1.0, 3.0])
    row = rod(tuple(start), tuple(end), 0.3)
    row[22] = 3.0  # without caps
    points, _ = surface([row], 500)
    along = (end - start) / np.linalg.norm(end - start)
    away = points - start
    np.testing.assert_allclose(
        np.linalg.norm(away - np.outer(away @ along, along), axis=1), 0.3, atol=1e-6
    )
    assert (away @ along).min() > 0 and (away @ along).max() < np.linalg.norm(end - start)


def test_sine_is_close():
    turns = np.linspace(-3, 3, 1001)
    np.testing.assert_allclose([sine(t) for t in turns], np.sin(TAU * turns), atol=1e-7)


# ---- areas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "area"),
    [
        (box(0, 0, 0, 1, 2, 3), 22.0),
        (post(0, 0, 0, 1, 2), 3 * TAU),
        (post(0, 0, 0, 1, 1, top=0.0), TAU / 2 * (1 + math.sqrt(2))),
        (ball(0, 0, 0, 1), 2 * TAU),
        (ball(0, 0, 0, 2, 2, 1), 34.687),
        (hoop(0, 0, 0, 2, 0.5), TAU * TAU),
        (post(0, 0, 0, 1, 1, corners=4), 4 + 4 * math.sqrt(2)),
    ],
)
def test_cells_measure_the_area(row, area):
    _, cells = cells_and_areas([row], np.zeros(WARP))
    np.testing.assert_allclose(cells[-1, 6], area, rtol=0.01)


def test_rows_get_points_in_proportion_to_their_area():
    rows = [box(0, 0, 0, 1, 1, 1), ball(5, 0, 0, 1), box(9, 0, 0, 2, 1, 1)]
    _, owner = surface(rows, 4000)
    areas = np.array([6, 2 * TAU, 10])
    np.testing.assert_allclose(np.bincount(owner), 4000 * areas / areas.sum(), atol=12)


def test_points_are_uniform_where_a_warp_stretches():
    warp = np.array([1.0, 0.5, 1.0, 0.9, 0, 0, 0, 0, 0, 0, 0, 0])  # widths from 0.55 to 1.45
    points, _ = surface([box(0, 0, 0, 1, 1, 1, omit=3)], 20_000, warp)
    upper = (points[:, 2] > 0.5).mean()
    np.testing.assert_allclose(upper, (1 + 1.45) / (0.55 + 2 + 1.45), atol=0.02)


def test_a_twist_keeps_the_distance_to_the_axis_and_a_bend_the_length():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 100))
    twisted = points.copy()
    warp_points(np.array([1.0, 0, 1, 0, 0.3, 0, 0, 0, 0, 0, 0, 0]), twisted, 100)
    np.testing.assert_allclose(np.hypot(*twisted[:2]), np.hypot(*points[:2]), rtol=1e-6)
    line_ = np.stack([np.zeros(201), np.zeros(201), np.linspace(-0.5, 0.5, 201)])
    warp_points(np.array([1.0, 0, 1, 0, 0, 0.25, 0.1, 0, 0, 0, 0, 0]), line_, 201)
    steps = np.linalg.norm(np.diff(line_), axis=0)
    np.testing.assert_allclose(steps.sum(), 1, rtol=1e-4)
    ends = np.diff(line_[:, [0, 1]])[:, 0], np.diff(line_[:, [-2, -1]])[:, 0]
    cosine = ends[0] @ ends[1] / np.linalg.norm(ends[0]) / np.linalg.norm(ends[1])
    np.testing.assert_allclose(cosine, 0, atol=0.02)  # a quarter turn from end to end


# ---- copies, unions and cuts -------------------------------------------------------------------


def test_symmetric_copies_are_symmetric():
    row = rod((0.2, 0.3, 0.0), (0.5, 0.6, 1.0), 0.1, top=0.5)
    points, owner = surface(pair([row]), 4000)
    left, right = points[owner == 0], points[owner == 1]
    assert abs(len(left) - len(right)) <= 2
    image, _ = surface([mirrored(mirrored(row, 0), 0)], 2000)
    again, _ = surface([mirrored(row, 0)], 2000)
    np.testing.assert_allclose(again, image * [-1, 1, 1], atol=1e-12)
    table = np.array(four([row]))
    signs = table[:, [9, 13]] / table[0, [9, 13]]
    np.testing.assert_array_equal(signs, [[1, 1], [-1, 1], [1, -1], [-1, -1]])


def test_arrays_move_and_turn():
    row = ball(1.0, 0, 0, 0.2)
    centres = np.array(line([row], 3, (0.5, 0, 1)))[:, [9, 13, 17]]
    np.testing.assert_allclose(centres, [[1, 0, 0], [1.5, 0, 1], [2, 0, 2]])
    centres = np.array(ring([row], 4, lift=0.1))[:, [9, 13, 17]]
    expected = [[1, 0, 0], [0, 1, 0.1], [-1, 0, 0.2], [0, -1, 0.3]]
    np.testing.assert_allclose(centres, expected, atol=1e-12)


SOLIDS = {
    "box": turned(box(0.8, 0, -0.3, 0.8, 1, 1.1), 2, 0.3),
    "ball": ball(0.5, 0, 0.2, 0.6),
    "cone": post(0.3, 0.1, -1.5, 0.7, 3, top=0.2),
    "hexagon": post(0, 0, -2, 0.8, 4, corners=6),
}


def within(name: str, p: np.ndarray) -> np.ndarray:
    """Which points (N, 3) lie inside one of `SOLIDS`."""
    if name == "box":
        q = p @ [[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]]
        return (np.abs((q - [0.8, 0, 0.25]) / [0.4, 0.5, 0.55]) < 1).all(axis=1)
    if name == "hexagon":
        sides = np.arange(6) * TAU / 6 + TAU / 12
        return (p[:, :2] @ [np.cos(sides), np.sin(sides)]).max(1) < 0.8 * math.cos(TAU / 12)
    if name == "ball":
        return np.linalg.norm(p - [0.5, 0, 0.2], axis=1) < 0.6
    return np.hypot(p[:, 0] - 0.3, p[:, 1] - 0.1) < 0.7 * (1 - 0.8 * (p[:, 2] + 1.5) / 3)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("name", SOLIDS)
def test_a_cut_removes_exactly_what_is_inside_or_outside(name, outside):
    row = box(0, 0, -1, 2, 2, 2)
    cuts = np.array([cut_of(SOLIDS[name], 0, 1, outside=outside)])
    table, cells = cells_and_areas([row], np.zeros(WARP))
    space, ends = scatter(cells, 3000, np.array([5], np.uint64))
    place_cells(table, cells, ends, space)
    before = space[2:].T.copy()
    kept = keep(table, cuts, backs_of(table, cuts), cells, ends, space[2:])
    expected = before[within(name, before) == outside]
    assert 0 < len(expected) < 3000
    np.testing.assert_array_equal(space[2:, :kept].T, expected)


def test_a_union_has_no_inner_surface_and_a_cut_spares_other_rows():
    rows = [ball(0, 0, 0, 1), box(0.5, 0, -0.25, 2, 0.5, 0.5), ball(0.2, 0, 0, 0.3)]
    rows[2][2] = 0.0  # no solid; inside the first one
    table, cells = cells_and_areas(rows, np.zeros(WARP))
    space, ends = scatter(cells, 3000, np.array([5], np.uint64))
    place_cells(table, cells, ends, space)
    none = np.empty((0, table.shape[1]))
    kept = keep(table, none, backs_of(table, none), cells, ends, space[2:])
    left = space[2:, :kept].T
    assert np.linalg.norm(left, axis=1).min() > 1 - 1e-5
    inside = np.abs((left - [0.5, 0, 0]) / [1, 0.25, 0.25]).max(axis=1)
    assert inside.min() > 1 - 1e-5


# ---- sensors -----------------------------------------------------------------------------------


def seen(rows: list[Row], direction: np.ndarray, distance: float = 0.0) -> tuple:
    """Points that a camera keeps, frame, and the tolerance in radii."""
    points, _ = surface(rows, 4000)
    sense, frame = np.zeros(SENSE), np.zeros(FRAME)
    sense[0], sense[1:4], sense[4] = 1.0, direction, distance
    points = points.T.copy()
    count = points.shape[1]
    frame_of(points, count, sense, frame)
    image = np.empty((3, count))
    project(frame, distance, points, image)
    depth = depth_image(image, distance)
    state = np.array([0], np.uint64)
    kept = pick(points, count, image, depth, np.empty((0, 3)), 0.0, sense, state)
    return points.T[:kept], frame, tolerance(len(depth))


def directions(count: int) -> np.ndarray:
    """Unit vectors (count, 3)."""
    found = np.random.default_rng(0).normal(size=(count, 3))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_a_view_of_a_ball_has_hardly_a_point_of_its_far_side():
    for direction in directions(8):
        points, _, slack = seen([ball(0, 0, 0, 1)], direction)
        towards = points @ direction
        behind = -2 * towards > slack * 1.01  # the surface in front is twice as far behind
        assert behind.mean() < 0.005  # what shines through pixels without a point
        assert (towards > 0.3).sum() > 1000  # and the near side is there
    points, *_ = seen([ball(0, 0, 0, 1)], np.array([0.0, 0, 1]), 2.0)
    # from two radii away, the horizon is at 1/2
    assert np.quantile(points[:, 2], 0.005) > 0.5 - 0.15


def test_a_plate_hides_what_is_behind_it():
    plate, behind = box(0, 0, 1, 2, 2, 0.01), ball(0, 0, -0.5, 0.5)
    points, *_ = seen([plate, behind], np.array([0.0, 0, 1]))
    assert len(points) > 500 and points[:, 2].min() > 0.9


def test_the_image_looks_along_the_direction():
    for direction in directions(5):
        sense, frame = np.zeros(SENSE), np.zeros(FRAME)
        sense[1:4] = direction
        corners = np.array([[-1.0, 1, 0], [0.0, 0, 1], [1.0, -1, 2]])
        frame_of(corners, 3, sense, frame)
        axes = frame[4:].reshape(3, 3)
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(np.cross(axes[0], axes[1]), direction, atol=1e-12)


def test_holes_and_noise_have_their_size():
    shape = Program([ball(0, 0, 0, 1)])
    shape.sense[15] = 0.02
    reach = np.linalg.norm(run(shape, 20_000, 1), axis=1)
    np.testing.assert_allclose(reach.std() / reach.mean(), 0.02, rtol=0.1)
    shape.sense[13], shape.sense[14], shape.sense[15] = 1.0, 0.5, 0.0
    whole, holed = run(Program(shape.rows), 3000, 2), run(shape, 3000, 2)
    assert np.linalg.norm(whole.mean(axis=0)) < 1e-5
    middle = holed.mean(axis=0) + 0  # moved to the origin: the ball's own middle is off it
    assert np.linalg.norm(middle) < 1e-5
    gaps = np.linalg.norm(holed[:, None] - whole[None, ::10], axis=2).min(axis=0)
    assert gaps.max() > 0.3


def test_a_pose_is_a_linear_map():
    points = np.random.default_rng(0).normal(size=(3, 10))
    matrix = np.random.default_rng(1).normal(size=(3, 3))
    posed = points.copy()
    pose_points(matrix.ravel(), posed, 10)
    np.testing.assert_allclose(posed, matrix @ points, atol=1e-12)
    assert POSE == matrix.size == UPRIGHT.size


def test_scaling_a_row_scales_its_points():
    row = turned(box(0.3, 0, 0, 1, 2, 3), 0, 0.4)
    first, _ = surface([row], 300)
    _, cells = cells_and_areas([row], np.zeros(WARP))
    space, ends = scatter(cells, 300, np.array([0], np.uint64))
    place_cells(np.array([scaled(row, (2, 1, 0.5))]), cells, ends, space)
    np.testing.assert_allclose(space[2:].T, first * [2, 1, 0.5], atol=1e-12)


# ---- as data -----------------------------------------------------------------------------------


def test_sources_are_spelled_with_a_count():
    assert programs_in("programs", 7) == 7
    assert programs_in("programs:200000", 7) == 200_000
    assert programs_in("procedural", 7) is None
    for bad in ("programs:", "programs:0", "programs:x", "programs:-3"):
        with pytest.raises(InputError, match="expected programs:COUNT"):
            programs_in(bad, 7)


def test_training_streams_programs_and_holds_out_other_shapes():
    config = DataConfig(train="programs:40", points=64)
    train = load_train(config, seed=3)
    assert isinstance(train, Programs) and len(train) == 40
    assert train.name == "programs (40 shapes, seed 6)"
    epochs = []
    for epoch in (0, 0, 1):
        batches = train.batches(16, seed=1)
        batches.set_epoch(epoch)
        epochs.append([batch.numpy() for batch in batches])
    assert [len(epoch) for epoch in epochs] == [2, 2, 2]
    assert epochs[0][0].shape == (16, 64, 3)
    np.testing.assert_array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], epochs[2])
    known = {program(6, i, 64).tobytes() for i in range(40)}
    assert {cloud.tobytes() for cloud in np.concatenate(epochs[0])} <= known
    halves = [list(train.batches(8, seed=1, rank=rank, world=2)) for rank in range(2)]
    assert sum(len(half) for half in halves) == 4
    _, held = load_and_measured(config, seed=3)
    assert held is not None and held.part == "held-out clouds" and len(held.clouds) == 40
    assert not known & {cloud.tobytes() for cloud in held.clouds.points}


def test_processes_draw_the_same_batches_in_the_same_order():
    alone, helped = (Programs(40, points=64, seed=6, workers=w).batches(8, seed=1) for w in (0, 1))
    np.testing.assert_array_equal(list(alone), list(helped))
    batches = iter(helped)  # the same processes draw the next epoch
    np.testing.assert_array_equal(next(batches), next(iter(alone)))
    batches.close()
    for process in helped.pool._processes.values():
        process.kill()
    with pytest.raises(InputError, match="has ended"):
        list(helped)


def test_programs_can_be_read_into_memory_without_labels():
    clouds = load_part("programs:5", points=32, clouds=9, seed=1, train=True)
    assert clouds.points.shape == (5, 32, 3) and (clouds.labels == -1).all()
    np.testing.assert_array_equal(clouds.points[2], program(2, 2, 32))


@pytest.mark.parametrize("splits", [labelled_splits, part_splits])
def test_tasks_that_need_labels_refuse_programs(splits):
    data = DataConfig(train="programs:1000000", test="programs:1000000")
    with pytest.raises(InputError, match="random programs have no classes"):
        splits(data, seed=0)


def test_draws_stay_in_their_range():
    d = Draw(3)
    assert all(2 <= d.whole(2, 4) <= 4 for _ in range(100))
    assert {d.pick("ab") for _ in range(50)} == {"a", "b"}
    assert row_of(0, (1, 2, 3), (4, 5, 6), ())[6:18] == [4, 0, 0, 1, 0, 5, 0, 2, 0, 0, 6, 3]
