"""Splits of labelled clouds whose training and test parts fit together."""

from __future__ import annotations

from foundry3d.config import DataConfig, require_data
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Splits, load_splits
from foundry3d.data.programs import programs_in
from foundry3d.errors import InputError


def require_labelled(config: DataConfig) -> None:
    """Refuses random programs, before any is made, where labels are needed.

    Raises:
        InputError: training or test clouds are programs.
    """
    for source in (config.train, config.test):
        if source is not None and programs_in(source, 1) is not None:
            raise InputError(
                f"{source}: random programs have no classes and no parts; name labelled clouds"
            )


def load_tested(config: DataConfig, *, seed: int = 0) -> tuple[Splits, Clouds, Clouds]:
    """The splits that `load_splits` returns, and their training and test clouds.

    Raises:
        InputError: as `load_splits`, no test clouds are named, or clouds without labels.
    """
    require_data(config, test=True)
    require_labelled(config)
    splits = load_splits(config, seed=seed)
    assert splits.test is not None
    return splits, splits.train, splits.test


def require_names(
    source: str, what: str, names: tuple[str, ...], wanted: tuple[str, ...], owner: str
) -> None:
    """Refuses data called `source` whose classes or parts (`what`) are not those of `owner`.

    Raises:
        InputError: the names differ, or their order does.
    """
    if names != wanted:
        raise InputError(
            f"{source}: its {what} {', '.join(names[:5])} are not those of {owner}, "
            f"{', '.join(wanted[:5])}, in the same order"
        )


def require_classes(train: Clouds, test: Clouds) -> None:
    """Refuses test clouds of other classes; either side may lack the last classes of the other.

    Raises:
        InputError: the classes differ, or a test label has no class in training.
    """
    known = len(train.class_names)
    shared = min(known, len(test.class_names)) if test.labels.max() < known else None
    require_names(
        test.name, "classes", test.class_names[:shared], train.class_names[:shared], train.name
    )


def labelled_splits(data: DataConfig, *, seed: int) -> Splits:
    """Splits with test clouds, in which every cloud has a label and the classes agree.

    Raises:
        InputError: data that cannot be read, no test clouds, a cloud without a label, fewer than
            two classes, or test classes that differ from those of training.
    """
    splits, train, test = load_tested(data, seed=seed)
    for clouds in (train, test):
        if clouds.labels.min() < 0 or len(train.class_names) < 2:
            raise InputError(f"{clouds.name}: expected a label of one of two or more classes")
    require_classes(train, test)
    return splits
