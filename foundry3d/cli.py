"""The command line: options are the fields of the configuration records, an error is one line.

Nothing heavy is imported before a command's options are read, so help is instant.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

from foundry3d import config as configs
from foundry3d.config import RECIPES, protocols
from foundry3d.config.earlier import RENAMED
from foundry3d.config.paths import require_apart
from foundry3d.config.records import texts_in
from foundry3d.config.settings import find_recipes, guard_values, read_yaml
from foundry3d.errors import InputError, lack_of_memory
from foundry3d.report.terminal import Lines, Shown, one_line


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
    "demo": Command(configs.DemoConfig, "demo:demo", "distillation on built-in shapes, in minutes"),
    "pretrain": Command(configs.PretrainConfig, "training.pretrain:pretrain",
        "pre-train a teacher without labels"),
    "distill": Command(configs.DistillConfig, "training.distill:distill",
        "distil a student from a frozen teacher"),
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
"""All commands. A new one needs its record in `config/`, its function and a line here."""

UNKNOWN = (
    r"unrecognized arguments: --([\w.]+)",
    r"^Option '([\w.]+)'",
    r"Group '([\w.]+)' does not accept option '([\w.]+)'",
    r'^Parser key "([\w.]+)"',
)
"""How the parser names an option that it does not know."""


def usage() -> str:
    """The text of `foundry3d --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {command.text}" for name, command in COMMANDS.items()]
    recipes = sorted(str(p.relative_to(RECIPES)) for p in RECIPES.glob("*/*.yaml"))
    return "\n".join(
        [
            "usage: foundry3d COMMAND [--config RECIPE] [--option value] [--group.option value]",
            "",
            "Distils a large self-supervised 3D point-cloud model into a small general one.",
            "",
            *lines,
            "",
            "foundry3d COMMAND --help lists the options; --print_config shows what would run.",
            "--debug with any command also logs errors that are otherwise one sentence, whole.",
            "recipes for --config (or a file of yours): " + ", ".join(recipes),
        ]
    )


def fail(message: str, status: int = 2) -> NoReturn:
    """Exits with one line on standard error."""
    print(f"foundry3d: error: {one_line(message)}", file=sys.stderr)
    sys.exit(status)


def option_type(kind: type, name: str) -> Any:
    """The annotation of a dotted option of a configuration record; None if it is unknown."""
    hint: Any = kind
    for part in name.split("."):
        if not is_dataclass(hint):
            return None
        hint = get_type_hints(hint).get(part)
    return hint


def renamed(kind: type, name: str) -> str | None:
    """The present name of a record's option that was renamed; None if it was not."""
    own = option_type(kind, name)
    if own is not None and not is_dataclass(own):
        return None
    ends = ((old, new) for old, new in RENAMED.items() if f".{name}".endswith(f".{old}"))
    found = [name.removesuffix(old) + new for old, new in ends]
    return next((new for new in found if option_type(kind, new) is not None), None)


def item_type(hint: Any) -> Any:
    """The type of a tuple's items, of an optional one too; None for anything else."""
    tuples = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is tuple]
    return get_args(tuples[0])[0] if tuples else None


def plain_words(kind: type, arguments: list[str]) -> list[str]:
    """Arguments as the parser expects them: `--flag` becomes `--flag true`, lists become JSON.

    This allows `--resume`, `--models a b` and `--backbone.point_widths 32 64 128`. Words before
    the first option belong to the record's first field: `foundry3d convert PATH`.
    """
    if arguments and not arguments[0].startswith("-") and fields(kind):
        arguments = [f"--{fields(kind)[0].name}", *arguments]
    words: list[str] = []
    i = 0
    while i < len(arguments):
        word = arguments[i]
        values = list(takewhile(lambda w: not w.startswith("--"), arguments[i + 1 :]))
        hint = option_type(kind, word[2:]) if word.startswith("--") else None
        words.append(word)
        if hint in (bool, bool | None) and not values:
            words.append("true")
        elif (held := item_type(hint)) and values not in ([], ["null"]) and values[0][0] != "[":
            words.append(json.dumps(values) if held is str else f"[{', '.join(values)}]")
            i += len(values)
        i += 1
    return words


def split_command(arguments: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and the arguments that follow it."""
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    return " ".join(arguments[:words]), arguments[words:]


def plain_error(kind: type, message: str) -> str:
    """The parser's message: of a renamed option its new name, of a bad value what was given."""
    for pattern in UNKNOWN:
        if found := re.search(pattern, message):
            name = ".".join(found.groups())
            if new := renamed(kind, name):
                return f"--{name} is now --{new}; --help lists the options"
    value = re.search(r'Parser key "([^"]+)".*Given value: (.*)', message, re.DOTALL)
    if value is None or "\n" in value[2].strip():
        return message
    return f"--{value[1]} does not take {value[2].strip()!r}; --help says what it takes"


def read_options(command: str, arguments: list[str]) -> Any:
    """The command's configuration record, made from its arguments; exits where they are wrong."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            fail(f"{command}: {plain_error(kind, message)}")

    guard_values()
    kind, _, text = COMMANDS[command]
    parser = Parser(prog=f"foundry3d {command}", description=text, allow_abbrev=False)
    parser.add_class_arguments(kind, as_group=False)
    parser.add_argument("--config", action="config", help="a recipe (YAML)")
    words = plain_words(kind, find_recipes(arguments))
    for word, value in pairwise(part for w in words for part in w.split("=", 1)):
        group = word.startswith("--") and is_dataclass(option_type(kind, word[2:]))
        if group and os.path.isfile(value):  # the settings of a group in a file
            read_yaml(Path(value))
    asked = parser.parse_args([word for word in words if not word.startswith("--print_config")])
    if asked.get("protocol") is not None:  # its settings become the defaults
        settings = protocols.find(asked["protocol"], command).settings
        parser.set_defaults(dict(protocols.dotted(settings)))
    options = parser.parse_args(words)
    made = parser.instantiate(options)
    return kind(**{k: v for k, v in vars(made).items() if k != "config"})


OUTPUTS = ("out", "results")
"""Options of all commands that name what is written."""


def talk(debug: bool = False) -> None:
    """Sends the package's progress lines and all warnings but one to standard error.

    The exception is the trainer's use of a deprecated torch name.
    """
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
