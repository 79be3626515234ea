import numpy as np
import pytest

from foundry3d.errors import InputError
from foundry3d.evaluation.metrics import (
    class_iou,
    confusion,
    mean_class_accuracy,
    mean_class_iou,
    mean_std,
    miou_category,
    miou_instance,
    overall_accuracy,
    part_iou,
    shape_iou,
)

OWNED = (np.array([0, 1]), np.array([2, 3, 4]))


@pytest.fixture
def g() -> np.random.Generator:
    return np.random.default_rng(3)


def drawn(g: np.random.Generator, n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts, wrong predictions within the category, and categories of shapes."""
    categories = np.arange(n) % 2
    low, count = np.array([0, 2])[categories, None], np.array([2, 3])[categories, None]
    labels, predictions = (low + g.integers(0, 60, (n, 40)) % count for _ in range(2))
    return labels, predictions, categories


def test_reference(parity) -> None:
    found = np.load(parity / "miou.npz")
    category, table = found["category"], found["category_parts"]
    owned = [row[row >= 0] for row in table]
    logits = np.full_like(found["logits"], -np.inf)
    for shape, c in enumerate(category):
        logits[shape][:, owned[c]] = found["logits"][shape][:, owned[c]]
    shapes = shape_iou(found["labels"], logits.argmax(-1), category, owned)
    assert miou_instance(shapes) == pytest.approx(float(found["miou_instance"]), abs=1e-6)
    assert miou_category(shapes, category) == pytest.approx(float(found["miou_category"]), abs=1e-6)


def test_confusion_counts_every_pair(g) -> None:
    labels, predictions = g.integers(0, 4, (2, 5, 30))
    matrix = confusion(labels, predictions, 6)
    for truth in range(6):
        for guess in range(6):
            assert matrix[truth, guess] == ((labels == truth) & (predictions == guess)).sum()
    halves = [confusion(labels[s], predictions[s], 6) for s in (slice(0, 2), slice(2, 5))]
    np.testing.assert_array_equal(matrix, halves[0] + halves[1])


def test_accuracies_by_hand() -> None:
    labels, predictions = np.array([0, 0, 0, 0, 2]), np.array([0, 0, 0, 1, 0])
    assert overall_accuracy(labels, predictions) == pytest.approx(3 / 5)
    assert mean_class_accuracy(labels, predictions, 5) == pytest.approx((3 / 4 + 0) / 2)
    assert mean_class_accuracy(labels, labels, 5) == 1


def test_data_set_iou_by_hand_and_without_a_class() -> None:
    labels, predictions = np.array([[0, 0, 1, 1, 2]]), np.array([[0, 1, 1, 1, 1]])
    matrix = confusion(labels, predictions, 4)
    np.testing.assert_allclose(class_iou(matrix), [1 / 2, 2 / 4, 0, np.nan])
    assert mean_class_iou(matrix) == pytest.approx(1 / 3)
    assert mean_class_iou(matrix, without=[0]) == pytest.approx(1 / 4)
    assert mean_class_iou(matrix) == mean_class_iou(confusion(labels, predictions, 9))
    assert np.isnan(mean_class_iou(matrix, without=[0, 1, 2]))


def test_part_iou_agrees_with_its_definition(g) -> None:
    labels, predictions, _ = drawn(g)
    found = part_iou(labels, predictions, 6)
    for shape in range(len(labels)):
        for part in range(6):
            truth, guess = labels[shape] == part, predictions[shape] == part
            both, either = (truth & guess).sum(), (truth | guess).sum()
            assert found[shape, part] == pytest.approx(both / either if either else 1.0)


def test_perfect_predictions_score_one(g) -> None:
    labels, _, categories = drawn(g)
    shapes = shape_iou(labels, labels, categories, OWNED)
    assert miou_instance(shapes) == miou_category(shapes, categories) == 1
    assert mean_class_iou(confusion(labels, labels, 5)) == 1


def test_a_part_absent_from_both_counts_as_one() -> None:
    labels, predictions = np.array([[2, 2, 2, 2]]), np.array([[2, 2, 3, 3]])
    found = shape_iou(labels, predictions, np.array([1]), OWNED)
    np.testing.assert_allclose(found, [(2 / 4 + 0 + 1) / 3])


def test_scores_do_not_depend_on_the_order_of_points_or_on_absent_categories(g) -> None:
    labels, predictions, categories = drawn(g)
    order = g.permutation(labels.shape[1])
    found = shape_iou(labels, predictions, categories, OWNED)
    np.testing.assert_allclose(
        shape_iou(labels[:, order], predictions[:, order], categories, OWNED), found
    )
    more = (*OWNED, np.array([5, 6]))
    np.testing.assert_allclose(shape_iou(labels, predictions, categories, more), found)


def test_category_and_instance_means_weigh_categories_differently() -> None:
    shapes, categories = np.array([1.0, 1, 1, 0]), np.array([0, 0, 0, 2])
    assert miou_instance(shapes) == 0.75
    assert miou_category(shapes, categories) == 0.5


def test_mean_and_sample_deviation() -> None:
    assert mean_std([1, 2, 3]) == (2, 1)
    assert mean_std([5.0]) == (5, 0)


def test_unusable_predictions_are_refused(g) -> None:
    labels, predictions, categories = drawn(g)
    with pytest.raises(InputError, match="shapes"):
        confusion(labels, predictions[:3], 5)
    with pytest.raises(InputError, match=r"0\.\.2"):
        confusion(labels, predictions, 3)
    with pytest.raises(InputError, match="does not own"):
        shape_iou(labels, predictions, categories, OWNED[::-1])
    with pytest.raises(InputError, match="categories"):
        shape_iou(labels, predictions, categories, OWNED[:1])
    with pytest.raises(InputError, match="at least one"):
        mean_std([])
