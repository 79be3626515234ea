"""Options of the commands that reproduce the paper: `suite`, `sweep gate` and `cost`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from foundry3d.config.cluster import ClusterConfig
from foundry3d.config.distillation import DistillConfig
from foundry3d.config.downstream import ClassifyConfig, FewshotConfig, SegmentConfig
from foundry3d.config.models import StudentOptions
from foundry3d.config.pretraining import PretrainConfig
from foundry3d.config.records import (
    MOST,
    WIDEST,
    all_positive,
    positive,
    require,
)

SUITES = (
    "table2", "table3", "table4", "table5", "table8", "table9", "table10", "table11", "table12",
    "table13", "figure2", "figure3", "figure4", "figure5", "figure6", "figure7",
)  # fmt: skip
SUITE_TASKS = ("classify", "probe", "segment")
UNFREEZE = ("start", "late", "never")
TRAINING = ("pretrain", "distill")
"""Names of `--data` that are no columns: the clouds that a suite's own models learn from."""
_NAME = re.compile(r"[\w-]+")
_MODEL = re.compile(r"[\w.-]+")
EXPONENTS = (*range(-15, 2), -11.75, -11.5, -11.25, -10.75, -10.5, -10.25)
LAMBDAS = (0.0, *sorted([*(10.0**i for i in EXPONENTS), 2.0]))
"""The values of Tables 11 and 15."""


def is_published_lambda(value: float) -> bool:
    """Whether a weight of the gate's regulariser is one of the paper's, to 3 digits."""
    return 0 <= value <= MOST and any(math.isclose(value, x, rel_tol=1e-3) for x in LAMBDAS)


class Source(NamedTuple):
    """The clouds of a column, as `data.train` and `data.test` take them."""

    train: str
    test: str


def _pairs(words: tuple[str, ...], option: str) -> dict[str, str]:
    """`NAME=VALUE` words as a dictionary."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        require(bool(equals and value), f"--{option} takes NAME=VALUE, got {word!r}")
        pattern, also = (_MODEL, ", .") if option == "models" else (_NAME, "")
        require(
            pattern.fullmatch(name) is not None,
            f"names of --{option} are letters, digits{also}, - and _, got {name!r}",
        )
        require(name not in found, f"--{option} names {name} twice")
        found[name] = value
    return found


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """`foundry3d suite`: all rows and columns of a table of the paper; finished cells are kept.

    Attributes:
        name: the table or figure: table2, table3, table4, table5, table8 to table13, or figure2 to
            figure7; `all` runs them one after another.
        teacher: a saved teacher (folder), or `pretrain`, which first trains one by the options of
            `pretrain`.
        out: folder for models, runs, `results.jsonl` and the tables; several tables may share it.
        data: one column per `NAME=TRAIN,TEST`. The paper's columns are mn40, oo3d, sonn-obj-bg,
            sonn-obj-only, sonn-pb, sn55 and snp; other names are columns without published
            figures. Published data sets and `procedural` need no `,TEST`. Three names are no
            columns: `distill=TRAIN` and `pretrain=TRAIN` are the clouds on which missing models are
            made, like `distill.data.train` and `pretrain.data.train`; of `fusion`, figure6 also
            shows which share of its tokens is merged, for which it needs no labels.
        tasks: `NAME=TASK` for columns that are measured in another way than in the paper:
            classify, probe or segment.
        models: `MODEL=FOLDER` for models that exist already, e.g. `s16=runs/s16/model`.
        seeds: of the fine-tuning runs; mean and deviation are taken over them.
        unfreeze: when the encoders of students start to train in fine-tuning: start, late (after
            two thirds of the epochs) or never; none named = as in the paper, which averages over
            all three (segmentation: start and never).
        gate_lambdas: weights of the gate's regulariser in tables 11 and 12 and figures 5 and 6, all
            or some of the paper's.
        only: run only these rows and columns; none named = all.
        cluster: models and cells run in processes of one thread each, or as jobs of a cluster.
        render: run nothing, write the tables from the rows that exist.
        as_published: measure every column by its published protocol, whose settings replace those
            of `classify`, `segment` and `fewshot`; columns without one are refused. Episodes are
            the published folds, below `fewshot.published`.
        pretrain: the teacher, where `teacher` is `pretrain`; and Point-JEPA with supertokens.
        distill: the students, including those made by token reducers; its clouds also give the
            prototypes and the distillation loss.
        classify: fine-tuned classification; its data gives the points and the held-out share.
        segment: fine-tuned part segmentation, likewise.
        fewshot: episodes, likewise.
    """

    name: str = "table5"
    teacher: str = ""
    out: str = "runs/suite"
    data: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    unfreeze: tuple[str, ...] = ()
    gate_lambdas: tuple[float, ...] = LAMBDAS
    only: tuple[str, ...] = ()
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    render: bool = False
    as_published: bool = False
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    classify: ClassifyConfig = field(default_factory=ClassifyConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    fewshot: FewshotConfig = field(default_factory=lambda: FewshotConfig(mode="finetune"))

    def __post_init__(self) -> None:
        known = (*SUITES, "all")
        require(self.name in known, f"no suite {self.name!r}; known are {', '.join(known)}")
        require(
            not (self.only and self.name == "all"),
            "--only names rows and columns of one table; name a table instead of all",
        )
        require(bool(self.teacher), "name a saved teacher with --teacher, or --teacher pretrain")
        require(
            bool(set(self.sources) - {"fusion"}) or self.name in ("table8", "figure6"),
            "name data with --data NAME=TRAIN,TEST",
        )
        for name, source in self._training.items():
            require("," not in source, f"--data {name} takes training clouds alone, got {source!r}")
            other = self._recipe(name).data.train
            require(
                other in ("", source),
                f"--data {name}={source} and --{name}.data.train {other} differ; name one of them",
            )
        unknown = sorted(set(self.chosen_tasks) - set(self.sources))
        require(not unknown, f"--tasks names {', '.join(unknown)}, which --data does not")
        for task in self.chosen_tasks.values():
            require(task in SUITE_TASKS, f"a task is one of {', '.join(SUITE_TASKS)}; got {task!r}")
        require(
            set(self.unfreeze) <= set(UNFREEZE),
            f"unfreeze takes {', '.join(UNFREEZE)}; got {', '.join(self.unfreeze)}",
        )
        require(
            len(self.seeds) > 0
            and 0 <= min(self.seeds) <= max(self.seeds) <= MOST
            and len(set(self.seeds)) == len(self.seeds),
            f"seeds are one or more different numbers in 0..{MOST}, got {self.seeds}",
        )
        require(
            len(self.gate_lambdas) > 0 and all(map(is_published_lambda, self.gate_lambdas)),
            "gate_lambdas are one or more of the paper's (0, 1e-15 to 10, 10**-11.75 and so on; "
            f"`sweep gate` takes any), got {self.gate_lambdas}",
        )

    @property
    def sources(self) -> dict[str, Source]:
        """The clouds of each column."""
        named = _pairs(self.data, "data")
        found = {name: named[name].partition(",") for name in named if name not in TRAINING}
        return {name: Source(train, test or train) for name, (train, _, test) in found.items()}

    @property
    def _training(self) -> dict[str, str]:
        named = _pairs(self.data, "data")
        return {name: named[name] for name in TRAINING if name in named}

    def _recipe(self, name: str) -> PretrainConfig | DistillConfig:
        return self.pretrain if name == "pretrain" else self.distill

    def with_training_clouds(self) -> SuiteConfig:
        """The same suite, where `pretrain` and `distill` have the clouds that `data` names."""
        changes: dict[str, Any] = {}
        for name, source in self._training.items():
            recipe = self._recipe(name)
            changes[name] = replace(recipe, data=replace(recipe.data, train=source))
        return replace(self, **changes)

    @property
    def chosen_tasks(self) -> dict[str, str]:
        """The tasks that were named, by column."""
        return _pairs(self.tasks, "tasks")

    @property
    def given(self) -> dict[str, str]:
        """Folders of the models that exist already, by name."""
        return _pairs(self.models, "models")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """`foundry3d sweep gate`: one gated student per lambda, each probed; finished runs are kept.

    Attributes:
        out: folder for the runs, `results.jsonl` and the pictures.
        gate_lambdas: weights of the gate's regulariser.
        frozen: whether the encoder stays frozen; true and false for the paper's Table 12.
        gate_decay: whether weight decay acts on the gate; true and false for both.
        distill: all other options of a run; its data also serves the probe.
        cluster: runs are shared among processes, or are jobs of a cluster.
    """

    out: str = "runs/sweep"
    gate_lambdas: tuple[float, ...] = LAMBDAS
    frozen: tuple[bool, ...] = (True, False)
    gate_decay: tuple[bool, ...] = (False,)
    distill: DistillConfig = field(
        default_factory=lambda: DistillConfig(student=StudentOptions(gate=True, gate_through=False))
    )
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        require(
            len(self.gate_lambdas) > 0 and all(0 <= x <= MOST for x in self.gate_lambdas),
            f"gate_lambdas are numbers in 0..{MOST}, at least one, got {self.gate_lambdas}",
        )
        require(self.distill.student.gate, "a sweep of the gate needs distill.student.gate")
        require(
            bool(self.frozen and self.gate_decay),
            "frozen and gate_decay need at least one value each",
        )


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """`foundry3d cost`: MACs, FLOPs and parameters, counted on the real modules.

    Attributes:
        paper: compare our counts with every row of the paper's cost tables.
        formula: compare the counts of one cloud with the closed forms of Table 1 and Appendix C.
        merged: with formula: tokens per cloud that the gated student merges; null = half.
        model: a saved model (folder) or a preset (vit_t, vit_s, vit_b; random weights).
        supertokens: with a preset: also count its students with these numbers of supertokens.
        batch_size: clouds per forward pass.
        results: JSON-lines file that the rows are added to; null = only shown.
    """

    paper: bool = False
    formula: bool = False
    merged: int | None = None
    model: str = "vit_s"
    supertokens: tuple[int, ...] = (16, 8, 4, 2, 1)
    batch_size: int = 64
    results: str | None = None

    def __post_init__(self) -> None:
        positive(self, "batch_size")
        all_positive(self, "supertokens", most=WIDEST)
        require(not (self.paper and self.formula), "choose one of --paper and --formula")
        require(
            self.merged is None or (self.formula and self.merged >= 0),
            f"merged goes with --formula and must not be negative, got {self.merged}",
        )
