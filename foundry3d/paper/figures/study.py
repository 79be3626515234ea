"""What is drawn: named models, their clouds, and what the models make of them.

Shapes: n clouds, N points, c tokens, s supertokens, d width.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foundry3d.checkpoints.folder import load_backbone, read_config
from foundry3d.config import FiguresConfig
from foundry3d.data.batches import in_order
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.evaluation.rows import short_name
from foundry3d.heads.classifier import Inner
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated
from foundry3d.report.rows import code_version
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")
BATCH = 64


class Subject(NamedTuple):
    """A model to draw.

    Attributes:
        name: what the pictures call it.
        folder: where it is saved.
        model: in evaluation mode; None where only its run is read.
    """

    name: str
    folder: str
    model: Inner | None

    @property
    def file_name(self) -> str:
        """The name as it stands in names of files: letters, digits, points, - and _."""
        return re.sub(r"[^\w.]+", "-", self.name).strip("-.") or "model"

    @property
    def supertokens(self) -> int:
        """s, or the number of tokens that a reducer leaves, of a model that assigns tokens."""
        assert self.model is not None
        assert not isinstance(self.model, Backbone | Truncated)
        return self.model.config.supertokens


class Encoded(NamedTuple):
    """What a model makes of the clouds that t-SNE and the measures of health read.

    Attributes:
        pooled: (n, 2d) float32, maximum and mean over tokens.
        assignment: (n, c) int64, the supertoken of each token, -1 = not merged; None for teachers.
    """

    pooled: np.ndarray
    assignment: Tensor | None


class Objects(NamedTuple):
    """Clouds that are drawn themselves.

    Attributes:
        points: (n, N, 3), normalised as the models read them.
        names: of each.
    """

    points: Tensor
    names: tuple[str, ...]


def name_and_folder(word: str) -> tuple[str, str]:
    """The parts of `NAME=FOLDER`, or a folder and what tables call it.

    Both may hold equals signs: the last one after which something exists counts, else the last.

    Raises:
        InputError: nothing before or after the equals sign.
    """
    ends = [i for i, letter in enumerate(word) if letter == "="]
    if Path(word).exists() or not ends:
        return short_name(word), word
    at = next((i for i in reversed(ends) if Path(word[i + 1 :] or "?").exists()), ends[-1])
    name, folder = word[:at].strip(), word[at + 1 :].strip()
    if not name or not folder:
        raise InputError(f"models are given as NAME=FOLDER or FOLDER, got {word!r}")
    return name, folder


def read_subjects(words: Sequence[str], *, models: bool) -> list[Subject]:
    """The models of `NAME=FOLDER` words; a fine-tuned one without its head.

    Args:
        words: of the command line.
        models: False = they are only named, not read.

    Raises:
        InputError: a model cannot be read, or two have the same name.
    """
    found: dict[str, Subject] = {}
    for word in words:
        subject = Subject(*name_and_folder(word), None)
        if (key := subject.file_name) in found:
            raise InputError(
                f"{found[key].folder} and {subject.folder} are called {found[key].name} and "
                f"{subject.name}, which makes the same file names; name them NAME=FOLDER"
            )
        found[key] = subject._replace(model=load_backbone(subject.folder) if models else None)
    return list(found.values())


def sample(clouds: Clouds, count: int, seed: int) -> Clouds:
    """At most `count` clouds, drawn without repetition, in their order."""
    if len(clouds) <= count:
        return clouds
    drawn = np.random.default_rng(seed).choice(len(clouds), count, replace=False)
    return clouds.take(np.sort(drawn))


def shown_classes(clouds: Clouds, wanted: Sequence[str], count: int, examples: int) -> list[int]:
    """Labels of the wanted classes; of none, `count` of those with enough clouds, evenly spaced.

    Raises:
        InputError: a class is unknown or has fewer clouds than `examples`, or none has enough.
    """
    sizes = np.bincount(clouds.labels[clouds.labels >= 0], minlength=len(clouds.class_names))
    unknown = [name for name in wanted if name not in clouds.class_names]
    if unknown:
        raise InputError(
            f"{clouds.name} has no class {', '.join(unknown)}; it has "
            f"{', '.join(clouds.class_names) or 'no classes'}"
        )
    enough = np.flatnonzero(sizes >= examples)
    if not wanted and not len(enough):
        raise InputError(f"{clouds.name}: no class has {examples} clouds; lower --examples")
    for name in wanted:
        if (held := int(sizes[clouds.class_names.index(name)])) < examples:
            raise InputError(f"{clouds.name}: {name} has {held} clouds, --examples is {examples}")
    if wanted:
        return [clouds.class_names.index(name) for name in wanted]
    places = np.linspace(0, len(enough) - 1, min(count, len(enough))).round().astype(int)
    return [int(label) for label in enough[places]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """The models and clouds of a call, which every figure reads.

    Attributes:
        config: of the call.
        subjects: the models.
        clouds: all clouds; None where only runs are read.
    """

    config: FiguresConfig
    subjects: Sequence[Subject]
    clouds: Clouds | None
    _encoded: dict[str, Encoded] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """Folder of the pictures."""
        return Path(self.config.out)

    @property
    def all_clouds(self) -> Clouds:
        """All clouds of the data."""
        assert self.clouds is not None
        return self.clouds

    @property
    def many(self) -> Clouds:
        """The clouds that t-SNE and the measures of health read."""
        return sample(self.all_clouds, self.config.clouds, self.config.seed)

    def objects(self, examples: int = 1) -> Objects:
        """Clouds to draw, `examples` of each class one after the other.

        Raises:
            InputError: an unknown class, or one with too few clouds.
        """
        config, clouds = self.config, self.all_clouds
        draw = np.random.default_rng(config.seed)
        if not clouds.class_names:
            if config.classes:
                shown_classes(clouds, config.classes, 0, examples)
            count = min(len(clouds), config.objects * examples)
            index = np.sort(draw.choice(len(clouds), count, replace=False))
            names = [f"cloud {i}" for i in index]
        else:
            labels = shown_classes(clouds, config.classes, config.objects, examples)
            index = np.concatenate(
                [
                    draw.choice(np.flatnonzero(clouds.labels == label), examples, replace=False)
                    for label in labels
                ]
            )
            names = [clouds.class_names[clouds.labels[i]] for i in index]
        batch = next(in_order(clouds.take(index), len(index), config.points))
        return Objects(normalise(batch), tuple(name.replace("_", " ") for name in names))

    def tokens(self, subject: Subject, objects: Objects) -> Tokens:
        """What a model makes of objects."""
        assert subject.model is not None
        with torch.inference_mode():
            return subject.model(objects.points)

    def encoded(self, subject: Subject) -> Encoded:
        """What a model makes of `many`; computed once."""
        if subject.name not in self._encoded:
            pooled, assigned = [], []
            for batch in in_order(self.many, BATCH, self.config.points):
                found = self.tokens(subject, Objects(normalise(batch), ()))
                pooled.append(found.pooled().float().numpy())
                if found.assignment is not None:
                    assigned.append(found.assignment)
            self._encoded[subject.name] = Encoded(
                np.concatenate(pooled), torch.cat(assigned) if assigned else None
            )
        return self._encoded[subject.name]

    def with_supertokens(self, figure: str, *, learned: bool = False) -> Iterator[Subject]:
        """The models that assign tokens; the others are left out of the figure, which is logged.

        Args:
            figure: its name.
            learned: only those whose supertokens are learned in the space of the tokens (DSO).
        """
        first = Objects(normalise(next(in_order(self.all_clouds, 1, self.config.points))), ())
        for subject in self.subjects:
            if learned and not isinstance(subject.model, Student):
                log.info("%s: %s has no learned supertokens and is left out", figure, subject.name)
            elif self.tokens(subject, first).assignment is None:
                log.info("%s: %s has no supertokens and is left out", figure, subject.name)
            else:
                yield subject

    def protocol(self, subjects: Sequence[Subject], shown: str) -> str:
        """The end of a caption: which models, which clouds, seed and version of the code.

        Args:
            subjects: the models of the figure.
            shown: which clouds, e.g. `907 clouds`; empty = none are read.
        """
        config = self.config
        models = "; ".join(f"{s.name}: {origin(s)}" for s in subjects)
        data = ""
        if shown:
            read = f"{config.points} points each, seed {config.seed}"
            data = f" Data: {self.all_clouds.name}, {shown}, {read}."
        return f"Models: {models}.{data} Code: {code_version()}."


def origin(subject: Subject) -> str:
    """Where a model is saved, and what its provenance says of its training."""
    if subject.model is None or not Path(subject.folder).is_dir():
        return subject.folder
    known = read_config(subject.folder)["provenance"]
    parts = {"data": "data {}", "epochs": "{} epochs", "seed": "seed {}"}
    said = [text.format(known[key]) for key, text in parts.items() if key in known]
    return f"{subject.folder} ({', '.join(said)})" if said else subject.folder
