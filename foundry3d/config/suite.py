"""Options of `foundry3d suite`: which table of the paper, on what data, and how parts train."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from foundry3d.config.distillation import DistillConfig
from foundry3d.config.downstream import ClassifyConfig, FewshotConfig, SegmentConfig
from foundry3d.config.pretraining import PretrainConfig
from foundry3d.config.records import require

SUITES = (
    "table2", "table3", "table4", "table5", "table8", "table9", "table10", "figure2", "figure4",
)  # fmt: skip
SUITE_TASKS = ("classify", "probe", "segment")
THAWS = ("start", "late", "never")
_NAME = re.compile(r"[\w-]+")


class Source(NamedTuple):
    """Where the clouds of a column come from, as `data.train` and `data.test` take them."""

    train: str
    test: str


def _pairs(words: tuple[str, ...], option: str) -> dict[str, str]:
    """`NAME=VALUE` words as a dictionary."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        require(bool(equals and value), f"--{option} takes NAME=VALUE, got {word!r}")
        require(
            _NAME.fullmatch(name) is not None,
            f"names of --{option} are letters, digits, - and _, got {name!r}",
        )
        require(name not in found, f"--{option} names {name} twice")
        found[name] = value
    return found


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """`foundry3d suite`: all rows and columns of a table of the paper, what is there is kept.

    Attributes:
        name: the table or figure, one of `SUITES`.
        teacher: a saved teacher (folder), or `pretrain`: made first, as `pretrain` says.
        out: folder of models, runs, `results.jsonl` and the tables; tables may share it.
        data: a column for each `NAME=TRAIN,TEST`. The paper's columns are mn40, oo3d,
            sonn-obj-bg, sonn-obj-only, sonn-pb, sn55 and snp; other names are columns without
            published figures. Published data sets and `procedural` need no `,TEST`.
        tasks: `NAME=TASK` for columns that are measured in another way than in the paper:
            classify, probe or segment.
        models: `MODEL=FOLDER` for models that are there already, e.g. `s16=runs/s16/model`.
        seeds: of the fine-tuning runs; mean and deviation are over all of them.
        thaws: when encoders of students thaw in fine-tuning: start, late (two thirds of the
            epochs), never; none named = as in the paper, which averages over all three
            (segmentation: start and never).
        only: run these rows and columns alone; none named = all.
        workers: processes that run a cell each, on one thread; 1 = none, 0 = one a processor.
        render: write the tables from the rows that are there, run nothing.
        as_published: fine-tune the paper's columns by their published protocols, which win over
            `classify` and `segment`.
        pretrain: the teacher, where `teacher` is `pretrain`; and Point-JEPA with supertokens.
        distill: the students, those of token reducers included.
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
    thaws: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    workers: int = 1
    render: bool = False
    as_published: bool = False
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    classify: ClassifyConfig = field(default_factory=ClassifyConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    fewshot: FewshotConfig = field(default_factory=lambda: FewshotConfig(mode="finetune"))

    def __post_init__(self) -> None:
        require(self.name in SUITES, f"no suite {self.name!r}; known are {', '.join(SUITES)}")
        require(bool(self.teacher), "name a saved teacher with --teacher, or --teacher pretrain")
        require(
            bool(self.sources) or self.name == "table8", "name data with --data NAME=TRAIN,TEST"
        )
        unknown = sorted(set(self.chosen_tasks) - set(self.sources))
        require(not unknown, f"--tasks names {', '.join(unknown)}, which --data does not")
        for task in self.chosen_tasks.values():
            require(task in SUITE_TASKS, f"a task is one of {', '.join(SUITE_TASKS)}; got {task!r}")
        require(set(self.thaws) <= set(THAWS), f"thaws are of {', '.join(THAWS)}; got {self.thaws}")
        require(
            len(self.seeds) > 0
            and min(self.seeds) >= 0
            and len(set(self.seeds)) == len(self.seeds),
            f"seeds are one or more different numbers from 0, got {self.seeds}",
        )
        require(self.workers >= 0, f"workers must not be negative, got {self.workers}")

    @property
    def sources(self) -> dict[str, Source]:
        """Sources by column name."""
        found = {name: text.partition(",") for name, text in _pairs(self.data, "data").items()}
        return {name: Source(train, test or train) for name, (train, _, test) in found.items()}

    @property
    def chosen_tasks(self) -> dict[str, str]:
        """Tasks by column name, those that were named."""
        return _pairs(self.tasks, "tasks")

    @property
    def given(self) -> dict[str, str]:
        """Folders of the models that are there already."""
        return _pairs(self.models, "models")
