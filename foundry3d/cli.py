"""The command line: options are the fields of the configuration records, an error is one line.

Nothing heavy is imported before a command's options are read, so help is instant.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from foundry3d import config as configs
from foundry3d import options as parsing
from foundry3d.config import RECIPES
from foundry3d.config.earlier import RENAMED as RENAMED
from foundry3d.config.paths import require_apart
from foundry3d.config.records import texts_in
from foundry3d.errors import InputError, lack_of_memory
from foundry3d.extras import explained
from foundry3d.options import fail
from foundry3d.options import option_type as option_type
from foundry3d.options import renamed as renamed
from foundry3d.report.terminal import Lines, Shown


class Command(NamedTuple):
    """A command of the command line.

    Attributes:
        options: its configuration record, whose fields are the options.
        function: `module:name` in the package; takes the record.
        text: what it does, in one line.
    """

    options: type
    function: str
    text: str


COMMANDS = {
    "demo": Command(configs.DemoConfig, "demo:demo", "students of a shipped teacher, in minutes"),
    "models": Command(configs.ModelsConfig, "bench.shipped:models", "the models that ship"),
    "pretrain": Command(configs.PretrainConfig, "training.pretrain:pretrain",
        "pre-train a teacher without labels"),
    "distill": Command(configs.DistillConfig, "training.distill:distill",
        "distil a student from a frozen teacher"),
    "teacher-features": Command(configs.TeacherFeaturesConfig,
        "embed.teacher_features:teacher_features",
        "a model's features stored to distil students from: teacher-features --model M --data D"),
    "search": Command(configs.SearchConfig, "training.search.run:search",
        "the student that reproduces a teacher best: search --teacher M --limit 5ms"),
    "probe": Command(configs.ProbeConfig, "evaluation.probe:probe_models",
        "linear SVM and k-NN on frozen features"),
    "classify": Command(configs.ClassifyConfig, "evaluation.classify:classify",
        "fine-tune for classes; held-out clouds choose the epoch"),
    "fewshot": Command(configs.FewshotConfig, "evaluation.fewshot:fewshot",
        "few-shot classification over folds"),
    "zeroshot": Command(configs.ZeroshotConfig, "evaluation.zeroshot:zeroshot",
        "nearest class mean, k-NN and texts; nothing is trained"),
    "segment": Command(configs.SegmentConfig, "evaluation.segment:segment",
        "fine-tune for part segmentation"),
    "specialize": Command(configs.SpecialistConfig, "evaluation.specialize:specialize",
        "distil only the outputs of a fine-tuned model"),
    "embed": Command(configs.EmbedConfig, "embed.files:embed",
        "features of your own files: embed FILES --model M --out F.npz"),
    "teach": Command(configs.TeachConfig, "evaluation.teach:teach",
        "a classifier from a few labelled files: teach EXAMPLES --out my-model"),
    "predict": Command(configs.PredictConfig, "evaluation.predict:predict",
        "labels of your own files: predict FILES --model my-model"),
    "similar": Command(configs.SimilarConfig, "evaluation.similar:similar",
        "the shapes most like a query: similar QUERY FILES --picture found.png"),
    "convert": Command(configs.ConvertConfig, "checkpoints.hub:convert",
        "turn another project's checkpoint into a folder to share: convert PATH"),
    "export": Command(configs.ExportConfig, "evaluation.exported:export",
        "a model as a file for other runtimes, verified: export MODEL --to onnx"),
    "data pack": Command(configs.PackConfig, "data.packing:pack",
        "pack a large collection into tar shards that training streams"),
    "data check": Command(configs.CheckConfig, "data.published.commands:check",
        "is a published data set complete: data check NAME FOLDER"),
    "data prepare": Command(configs.PrepareConfig, "data.published.commands:prepare",
        "pack a published data set into safe archives: data prepare NAME FOLDER"),
    "budgets": Command(configs.BudgetsConfig, "evaluation.budgets:accuracy_over_budgets",
        "accuracy over token budgets, ratios and numbers of supertokens"),
    "depth": Command(configs.DepthConfig, "evaluation.depth:depth",
        "how well a teacher's final features are predicted from each of its blocks"),
    "sweep gate": Command(configs.SweepConfig, "paper.gate_sweep:sweep_gate",
        "gated students over weights of the regulariser, with correlations"),
    "suite": Command(configs.SuiteConfig, "paper.suite.run:suite",
        "a table of the paper, or all: suite table5 --teacher M --data NAME=TRAIN,TEST"),
    "figures": Command(configs.FiguresConfig, "paper.figures.run:draw_figures",
        "the paper's figures of any models: figures NAME=FOLDER ... --data D"),
    "bench": Command(configs.BenchConfig, "bench.run:bench",
        "speed and memory: bench objects|scene|geometry|train|scaling|all"),
    "bench export": Command(configs.BenchExportConfig, "bench.exported:bench_export",
        "size, speed, memory and error of exported files: bench export MODEL"),
    "view": Command(configs.ViewConfig, "export.view:view", "exported models in the browser"),
    "cost": Command(configs.CostConfig, "paper.cost:show_cost", "MACs, FLOPs and parameters"),
    "doctor": Command(configs.DoctorConfig, "doctor:doctor", "what this machine has and uses"),
}  # fmt: skip
"""All commands. A new one is one entry here: its help, options and documentation follow from it."""


def usage() -> str:
    """The text of `foundry3d --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {command.text}" for name, command in COMMANDS.items()]
    recipes = sorted(str(p.relative_to(RECIPES)) for p in RECIPES.glob("*/*.yaml"))
    return "\n".join(
        [
            "usage: foundry3d COMMAND [--config RECIPE] [--option value] [--group.option value]\n",
            "Distils a large self-supervised 3D point-cloud model into a small general one.\n",
            *lines,
            "",
            "foundry3d COMMAND --help lists the options; --print_config shows what would run.",
            "--debug with any command also logs errors that are otherwise one sentence, whole.",
            "recipes for --config (or a file of yours): " + ", ".join(recipes),
        ]
    )


def with_commands(page: str) -> str:
    """A page of the documentation with all commands in its table of commands: `make commands`."""
    rows = (
        f"| `foundry3d {name}` | {COMMANDS[name].text.replace('|', ', ')} |" for name in COMMANDS
    )
    head, *_ = re.findall(r"\| command \| .*\n\|.*\n", page)
    start = page.index(head) + len(head)
    rest = re.sub(r"\A(?:\|.*\n)*", "", page[start:])
    return page[:start] + "\n".join([*rows, rest])


def split_command(arguments: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and the arguments that follow it."""
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    return " ".join(arguments[:words]), arguments[words:]


def read_options(command: str, arguments: list[str]) -> Any:
    """The command's configuration record, made from its arguments; exits where they are wrong."""
    kind, _, text = COMMANDS[command]
    return parsing.read(command, kind, text, arguments)


OUTPUTS = ("out", "results")
"""Options of all commands that name what is written."""


def talk(debug: bool = False) -> None:
    """Sends progress lines, and warnings but for a deprecated name of torch, to standard error."""
    log = logging.getLogger("foundry3d")
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(Lines("%(message)s"))
        log.addHandler(handler)
    logging.captureWarnings(True)
    warned = logging.getLogger("py.warnings")
    warned.addFilter(lambda record: "LeafSpec" not in record.getMessage())


def main(arguments: list[str] | None = None) -> None:
    """Runs `foundry3d`; after bad input it exits with one line and 2, or 1 if only part was bad."""
    with redirect_stdout(Shown(sys.stdout)) as out, redirect_stderr(Shown(sys.stderr)):
        try:
            run(sys.argv[1:] if arguments is None else arguments)
        finally:
            out.flush()


def run(arguments: list[str]) -> None:
    """Runs the command that the arguments name."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if arguments[0] == "--version":
        from foundry3d.report.rows import code_version

        print(code_version())
        return
    debug = "--debug" in arguments
    command, arguments = split_command([word for word in arguments if word != "--debug"])
    if command not in COMMANDS:
        fail(f"unknown command {command!r}; known are {', '.join(COMMANDS)}")
    try:
        options = read_options(command, arguments)
        outputs = {name: getattr(options, name, None) for name in OUTPUTS}
        require_apart(outputs, texts_in(options, but=OUTPUTS))
        if outputs["results"] is not None and Path(outputs["results"]).is_dir():
            fail(f"{outputs['results']} is a folder; --results names the file to add rows to")
        talk(debug)
        module, name = COMMANDS[command].function.split(":")
        with explained():
            getattr(importlib.import_module(f"foundry3d.{module}"), name)(options)
    except InputError as error:
        fail(str(error), error.status)
    except OSError as error:
        fail(f"{error}; what was complete before is kept")
    except (MemoryError, RuntimeError) as error:
        sentence = lack_of_memory(error)
        if sentence is None:
            raise
        fail(sentence)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
