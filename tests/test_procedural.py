"""Procedural shapes: what is promised of the clouds, and that points are uniform over area."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from foundry3d.data.clouds import Clouds
from foundry3d.data.procedural import CATEGORIES, PART_NAMES, category_parts, generate
from foundry3d.data.procedural.categories import SHAPES
from foundry3d.data.procedural.draw import Draw
from foundry3d.data.procedural.generation import _gaussian
from foundry3d.data.procedural.patches import Patches, X, Y, Z, either, join, move, turn, where
from foundry3d.data.procedural.primitives import ball, box, lathe, ring, rod
from foundry3d.data.procedural.sampling import sample
from foundry3d.errors import InputError

TAU = 2 * np.pi


@pytest.fixture(scope="module")
def clouds() -> Clouds:
    return generate(20 * len(CATEGORIES), seed=1)


def drawn(patches: Patches, count: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) and their patches (N,) of a single shape."""
    points, owner = sample(patches, count, np.random.default_rng(seed))
    return points[:, 0].T.astype(np.float64), owner[0]


def far_from_uniform(values: np.ndarray) -> float:
    """Kolmogorov's distance to the uniform law on 0..1, in units of its 99.9 % limit."""
    ranks = (np.arange(values.size) + 0.5) / values.size
    return float(np.abs(np.sort(values) - ranks).max() * np.sqrt(values.size) / 1.95)


# ---- the clouds ------------------------------------------------------------------------------


def test_same_arguments_give_the_same_arrays_and_seeds_differ():
    first, again, other = (generate(30, points=100, seed=s) for s in (4, 4, 5))
    for name in ("points", "labels", "parts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.points, other.points)
    assert not np.array_equal(first.labels, other.labels)


def test_result_is_a_fresh_copy_and_global_randomness_is_left_alone():
    before = np.random.get_state()[1].copy()
    first = generate(3, points=10, seed=4)
    first.points[:] = 0
    assert generate(3, points=10, seed=4).points.any()
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_record(clouds: Clouds):
    assert clouds.points.dtype == np.float32 and clouds.points.shape == (len(clouds), 2048, 3)
    assert clouds.labels.dtype == np.int64
    assert clouds.parts is not None and clouds.parts.dtype == np.uint8
    assert clouds.class_names == CATEGORIES and clouds.part_names == PART_NAMES
    assert clouds.name == "procedural (seed 1)"


@pytest.mark.parametrize("count", [1, 7, 26, 83])
def test_labels_are_balanced_and_shuffled(count: int):
    labels = generate(count, points=8, seed=2).labels
    tally = np.bincount(labels, minlength=len(CATEGORIES))
    assert tally.max() - tally.min() <= 1
    assert count < 10 or (np.diff(labels) < 0).any()


def test_clouds_are_centred_in_the_unit_sphere(clouds: Clouds):
    np.testing.assert_allclose(clouds.points.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(clouds.points, axis=2).max(axis=1), 1, atol=1e-5)


def test_a_single_point_is_the_origin():
    np.testing.assert_array_equal(generate(2, points=1).points, 0)


def test_z_is_up(clouds: Clouds):
    """Seats and table tops are above the legs, canopies above handles, roofs above walls."""
    pairs = (("chair/seat", "chair/leg"), ("table/top", "table/leg"), ("tree/crown", "tree/trunk"))
    for upper, lower in (
        *pairs,
        ("house/roof", "house/wall"),
        ("umbrella/canopy", "umbrella/shaft"),
    ):
        for cloud in np.flatnonzero(clouds.labels == CATEGORIES.index(upper.split("/")[0])):
            z, parts = clouds.points[cloud, :, 2], clouds.parts[cloud]
            assert z[parts == PART_NAMES.index(upper)].mean() > (
                z[parts == PART_NAMES.index(lower)].mean()
            )


def test_turned_by_any_angle_about_z():
    """The tails of airplanes point everywhere."""
    clouds = generate(100 * len(CATEGORIES), points=64, seed=6)
    planes = np.flatnonzero(clouds.labels == CATEGORIES.index("airplane"))
    tail = clouds.parts[planes] == PART_NAMES.index("airplane/tail")
    x, y = (np.where(tail, clouds.points[planes, :, d], 0).sum(axis=1) for d in (0, 1))
    assert far_from_uniform(np.arctan2(y, x).astype(np.float64) / TAU + 0.5) < 1


# ---- parts -----------------------------------------------------------------------------------


def test_part_names_and_categories_agree():
    table = category_parts()
    assert tuple(table) == CATEGORIES and len(CATEGORIES) >= 20
    assert sorted(i for ids in table.values() for i in ids) == list(range(len(PART_NAMES)))
    assert len(set(PART_NAMES)) == len(PART_NAMES) < 256
    for category, ids in table.items():
        assert len(ids) >= 2
        assert all(PART_NAMES[i].startswith(f"{category}/") for i in ids)


def test_clouds_show_parts_of_their_category(clouds: Clouds):
    table = category_parts()
    for label, parts in zip(clouds.labels, clouds.parts, strict=True):
        shown = set(np.unique(parts).tolist())
        assert len(shown) >= 2
        assert shown <= set(table[CATEGORIES[label]])


def test_every_part_is_seen(clouds: Clouds):
    assert set(np.unique(clouds.parts).tolist()) == set(range(len(PART_NAMES)))


def test_optional_parts_come_and_go(clouds: Clouds):
    arm = PART_NAMES.index("chair/arm")
    chairs = clouds.parts[clouds.labels == CATEGORIES.index("chair")]
    assert 0 < (chairs == arm).any(axis=1).mean() < 1


def test_builders_give_exactly_the_named_parts():
    draw = Draw(3, np.random.default_rng(0))
    for build, names in SHAPES.values():
        assert set(build(draw)) == set(names)


# ---- how hard the clouds are -------------------------------------------------------------------


def occupancy(points: np.ndarray) -> np.ndarray:
    """Share of the points (n, N, 3) in each cell of a 5 x 5 x 5 grid, (n, 125)."""
    cells = np.clip(((points + 1) * 2.5).astype(int), 0, 4) @ np.array([25, 5, 1])
    return np.stack([np.bincount(row, minlength=125) for row in cells]) / points.shape[1]


def test_raw_coordinates_tell_little_and_a_simple_descriptor_much_but_not_all():
    train, test = (generate(520, points=512, seed=seed) for seed in (10, 11))

    def accuracy(probe: LinearSVC | LogisticRegression, describe: Callable) -> float:
        probe.fit(describe(train.points), train.labels)
        return probe.score(describe(test.points), test.labels)

    raw = accuracy(LogisticRegression(C=0.1), lambda points: points[:, :128].reshape(520, -1))
    described = accuracy(LinearSVC(C=10), occupancy)
    assert raw < 0.2
    assert 0.3 < described < 0.9


# ---- uniform over area, in random order --------------------------------------------------------


def test_patches_of_a_box_get_points_by_area():
    patches = box((0, 0, 0), (1.0, 2.0, 3.0))
    np.testing.assert_allclose(sorted(patches.areas()[0]), [2, 2, 3, 3, 6, 6])
    points, owner = drawn(patches, 22_000)
    np.testing.assert_allclose(np.bincount(owner), patches.areas()[0] * 1000, atol=1)
    assert np.allclose(np.abs(points / [0.5, 1.0, 1.5]).max(axis=1), 1, atol=1e-6)
    for axis, half in enumerate((0.5, 1.0, 1.5)):
        inside = points[np.abs(points[:, axis]) < half - 1e-6, axis]
        assert far_from_uniform(inside / (2 * half) + 0.5) < 1


def test_shares_are_right_on_average():
    patches = box((0, 0, 0), (1.0, 2.0, 3.0))
    many = Patches(patches.kind, *(np.repeat(a, 4000, 0) for a in (patches.frame, patches.extent)))
    _, owner = sample(many, 3, np.random.default_rng(0))
    shares = np.bincount(owner.ravel(), minlength=6) / owner.size
    np.testing.assert_allclose(shares, patches.areas()[0] / 22, atol=0.01)


def uniform_cone(points: np.ndarray) -> np.ndarray:
    return (1 - points[:, 2]) ** 2


def uniform_torus(points: np.ndarray) -> np.ndarray:
    out = np.hypot(points[:, 0], points[:, 1]) - 1.0
    angle = np.arctan2(points[:, 2], out)
    return ((angle + 0.6 * np.sin(angle)) / TAU) % 1.0


SURFACES = {
    "sphere": (ball((0, 0, 0), 1.0, segments=100), lambda p: (p[:, 2] + 1) / 2, 2 * TAU),
    "zone": (ball((0, 0, 0), 1.0, low=0, high=30, segments=50), lambda p: p[:, 2] * 2, TAU / 2),
    "disc": (lathe((0, 0, 0), [(0, 0), (1, 0)]), lambda p: (p**2).sum(1), TAU / 2),
    "tube": (lathe((0, 0, 0), [(1, 0), (1, 1)]), lambda p: p[:, 2], TAU),
    "cone": (lathe((0, 0, 0), [(1, 0), (0, 1)]), uniform_cone, TAU / np.sqrt(2)),
    "torus": (ring((0, 0, 0), 1.0, 0.6), uniform_torus, TAU * TAU * 0.6),
    "triangle": (
        box((0, 0, 0.5), (1.0, 0.0, 1.0), top=(0, 1)),
        lambda p: 1 - (1 - p[:, 2]) ** 2,
        1.0,
    ),
    "parallelogram": (
        box((0, 0, 0.5), (0.0, 1.0, 1.0), slide=(0, 2)),
        lambda p: p[:, 1] + 0.5 - 2 * p[:, 2],
        2.0,
    ),
}


@pytest.mark.parametrize("name", SURFACES)
def test_points_are_uniform_over_curved_and_slanted_surfaces(name: str):
    patches, should_be_uniform, area = SURFACES[name]
    assert patches.areas().sum() == pytest.approx(area, rel=1e-3)
    points, _ = drawn(patches)
    assert far_from_uniform(np.clip(should_be_uniform(points), 0, 1)) < 1


def test_arcs_and_round_surfaces_are_uniform_in_angle():
    points, _ = drawn(ring((0, 0, 0), 1.0, 0.1, start=0.5, sweep=2.0))
    assert far_from_uniform((np.arctan2(points[:, 1], points[:, 0]) - 0.5) / 2) < 1
    points, _ = drawn(rod((0, 0, 0), (0, 0, 1), 0.3, 0.7))
    assert far_from_uniform(np.arctan2(points[:, 1], points[:, 0]) % TAU / TAU) < 1


def test_a_rod_lies_around_its_axis():
    start, end = np.array([0.2, -0.1, 0.3]), np.array([0.9, 0.7, -0.4])
    patches = rod(tuple(start), tuple(end), 0.1)
    points, owner = drawn(patches, 2000)
    unit = (end - start) / np.linalg.norm(end - start)
    along = (points - start) @ unit
    away = np.linalg.norm(points - start - along[:, None] * unit, axis=1)
    np.testing.assert_allclose(away[owner == 0], 0.1, atol=1e-5)
    np.testing.assert_allclose(along[owner == 1], 0, atol=1e-6)
    assert along.max() == pytest.approx(np.linalg.norm(end - start), abs=1e-5)


def test_moving_and_turning_copy_without_changing_areas():
    bag = join(box((0, 0, 0), (1.0, 2.0, 3.0), top=(0.5, 0.8)), ring((0, 0, 0), 1.0, 0.2))
    for copies in (
        turn(bag, X, np.array([0.3, 1.0])),
        turn(bag, Y, np.array([0.3, 1.0])),
        move(bag, (np.array([1.0, 2.0]), 0, 0)),
    ):
        np.testing.assert_allclose(copies.areas(), np.tile(bag.areas(), 2))
    corner = turn(box((1, 0, 0), (0.0, 1.0, 1.0)), Z, np.pi / 2)
    assert drawn(corner, 50)[0][:, 1] == pytest.approx(1)


def test_masks_take_the_area_away():
    mask = np.array([[True], [False]])
    both = either(mask, box((0, 0, 0), (1.0, 1.0, 1.0)), ball((0, 0, 0), 1.0))
    assert both.areas()[0].sum() == pytest.approx(6)
    assert both.areas()[1].sum() == pytest.approx(2 * TAU, rel=0.02)
    boxes = box((np.arange(3.0), 0, 0), (1.0, 1.0, 1.0))
    kept = where(np.array([[True, False, True]]), boxes)
    np.testing.assert_allclose(kept.areas().reshape(3, 6).sum(axis=1), [6, 0, 6])


def test_sampling_leaves_the_patches_alone():
    patches = join(box((0, 0, 0), (1.0, 2.0, 3.0)), ring((0, 0, 0), 1.0, 0.2))
    frame, extent = patches.frame.copy(), patches.extent.copy()
    sample(patches, 100, np.random.default_rng(0))
    np.testing.assert_array_equal(patches.frame, frame)
    np.testing.assert_array_equal(patches.extent, extent)


def test_first_points_are_a_uniform_subsample(clouds: Clouds):
    """Parts have the same share in a prefix, up to the chance of drawing without replacement."""
    head, whole = 512, clouds.points.shape[1]
    scores = []
    for ids in range(len(PART_NAMES)):
        mask = clouds.parts == ids
        share = mask.mean(axis=1)
        some = share * whole > 30
        spread = np.sqrt(share * (1 - share) / head * (1 - head / whole))
        scores.append(((mask[:, :head].mean(axis=1) - share)[some]) / spread[some])
    scores = np.concatenate(scores)
    assert abs(scores.mean()) < 0.1
    assert 0.9 < scores.std() < 1.1


def test_fast_gaussian_agrees_with_the_law():
    values = _gaussian((3, 5, 6667), np.random.default_rng(0)).ravel()
    assert values.dtype == np.float32 and values.size == 3 * 5 * 6667
    moments = [np.mean(values.astype(np.float64) ** k) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.06)


# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{"count": 0}, {"points": 0}, {"seed": -1}])
def test_bad_input_is_named(bad: dict[str, int]):
    (name, value), *_ = bad.items()
    with pytest.raises(InputError, match=f"{name} must be at least .*, got {value}"):
        generate(**{"count": 2, **bad})
