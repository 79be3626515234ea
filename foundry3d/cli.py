"""The command line: typed options from the configuration records, one line for every error.

Nothing heavy is imported before a command's options are read, so help is instant.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from dataclasses import fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from foundry3d import config as configs
from foundry3d.config import RECIPES, protocols
from foundry3d.errors import InputError

COMMANDS: dict[str, tuple[type, str, str]] = {
    "demo": (configs.DemoConfig, "foundry3d.demo:demo", "the main job on built-in shapes"),
    "pretrain": (
        configs.PretrainConfig,
        "foundry3d.training.pretrain:pretrain",
        "pre-train a teacher without labels",
    ),
    "distill": (
        configs.DistillConfig,
        "foundry3d.training.distill:distill",
        "distil a student from a frozen teacher",
    ),
    "probe": (
        configs.ProbeConfig,
        "foundry3d.evaluation.probe:probe_models",
        "linear SVM and k-NN on frozen features",
    ),
    "classify": (
        configs.ClassifyConfig,
        "foundry3d.evaluation.classify:classify",
        "fine-tuned classification; held-out clouds choose the epoch",
    ),
    "fewshot": (
        configs.FewshotConfig,
        "foundry3d.evaluation.fewshot:fewshot",
        "few-shot classification over folds",
    ),
    "zeroshot": (
        configs.ZeroshotConfig,
        "foundry3d.evaluation.zeroshot:zeroshot",
        "nearest class mean, k-NN and texts; nothing is trained",
    ),
    "segment": (
        configs.SegmentConfig,
        "foundry3d.evaluation.segment:segment",
        "fine-tune part segmentation",
    ),
    "specialize": (
        configs.SpecialistConfig,
        "foundry3d.evaluation.specialize:specialize",
        "a student of a fine-tuned model's outputs alone (KL divergence)",
    ),
    "embed": (
        configs.EmbedConfig,
        "foundry3d.embed.files:embed",
        "features of your own files: embed FILES --model M --out features.npz",
    ),
    "convert": (
        configs.ConvertConfig,
        "foundry3d.checkpoints.hub:convert",
        "another project's checkpoint, or ours, as a folder to share",
    ),
    "data pack": (
        configs.PackConfig,
        "foundry3d.data.packing:pack",
        "a large collection as tar shards that training streams",
    ),
    "data check": (
        configs.CheckConfig,
        "foundry3d.data.published.commands:check",
        "a copy of a published data set against its figures: data check NAME FOLDER",
    ),
    "data prepare": (
        configs.PrepareConfig,
        "foundry3d.data.published.commands:prepare",
        "a published data set as safe archives: data prepare NAME FOLDER --out F",
    ),
    "budgets": (
        configs.BudgetsConfig,
        "foundry3d.evaluation.budgets:accuracy_over_budgets",
        "accuracy over token budgets, ratios and numbers of supertokens",
    ),
    "sweep gate": (
        configs.SweepConfig,
        "foundry3d.paper.gate_sweep:sweep_gate",
        "gated students over the regulariser's weights, with correlations",
    ),
    "suite": (
        configs.SuiteConfig,
        "foundry3d.paper.suite.run:suite",
        "a whole table of the paper: suite table5 --teacher M --data NAME=TRAIN,TEST",
    ),
    "bench": (
        configs.BenchConfig,
        "foundry3d.bench.run:bench",
        "speed and memory here: bench objects|scene|geometry|train|scaling|all",
    ),
    "cost": (
        configs.CostConfig,
        "foundry3d.paper.cost:show_cost",
        "MACs, FLOPs and parameters",
    ),
    "doctor": (
        configs.DoctorConfig,
        "foundry3d.doctor:doctor",
        "what was found and picked",
    ),
}


def usage() -> str:
    """The text of `foundry3d --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, (_, _, text) in COMMANDS.items()]
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
    """Ends with one line on standard error and a status that is not 0."""
    print(f"foundry3d: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def find_recipes(arguments: list[str]) -> list[str]:
    """Arguments with the recipes named after --config replaced by their files.

    A file of that name in the current folder goes first, then the recipes of the package.
    """
    found = list(arguments)
    for i, argument in enumerate(arguments):
        name = argument.removeprefix("--config=")
        if i and arguments[i - 1] == "--config":
            prefix = ""
        elif name != argument:
            prefix = "--config="
        else:
            continue
        if not Path(name).is_file():
            packaged = RECIPES / (name if name.endswith(".yaml") else name + ".yaml")
            if not packaged.is_file():
                fail(f"no recipe {name!r}: neither a file nor one of the package's (--help)")
            found[i] = f"{prefix}{packaged}"
    return found


def option_type(kind: type, name: str) -> Any:
    """The annotation of a dotted option of a configuration record; None if there is none."""
    hint: Any = kind
    for part in name.split("."):
        if not is_dataclass(hint):
            return None
        hint = get_type_hints(hint).get(part)
    return hint


def item_type(hint: Any) -> Any:
    """The type of a tuple's items, of an optional one too; None for anything else."""
    tuples = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is tuple]
    return get_args(tuples[0])[0] if tuples else None


def plain_words(kind: type, arguments: list[str]) -> list[str]:
    """Arguments as the parser wants them: `--flag` becomes `--flag true`, lists become JSON.

    So that `--resume`, `--models a b` and `--backbone.point_widths 32 64 128` can be typed. Words
    in front of all options are the record's first field: `foundry3d convert PATH`.
    """
    if arguments and not arguments[0].startswith("-"):
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
            items = [v if held is not str else json.dumps(v, ensure_ascii=False) for v in values]
            words.append(f"[{', '.join(items)}]")
            i += len(values)
        i += 1
    return words


def split_command(arguments: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and the arguments that follow it."""
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    return " ".join(arguments[:words]), arguments[words:]


def plain_error(message: str) -> str:
    """The parser's message; of one about a value, what a reader needs of it."""
    found = re.search(r'Parser key "([^"]+)".*Given value: (.*)', message, re.DOTALL)
    if found is None or "\n" in found[2].strip():
        return message
    return f"--{found[1]} does not take {found[2].strip()!r}; --help says what it takes"


def read_options(command: str, arguments: list[str]) -> Any:
    """The command's configuration record from its arguments; ends the program on bad ones."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            fail(f"{command}: {plain_error(message)}")

    kind, _, text = COMMANDS[command]
    parser = Parser(prog=f"foundry3d {command}", description=text, allow_abbrev=False)
    parser.add_class_arguments(kind, as_group=False)
    parser.add_argument("--config", action="config", help="a recipe (YAML)")
    words = plain_words(kind, find_recipes(arguments))
    asked = parser.parse_args([word for word in words if not word.startswith("--print_config")])
    if asked.get("protocol") is not None:  # its settings become the defaults
        settings = protocols.find(asked["protocol"], command).settings
        parser.set_defaults(dict(protocols.dotted(settings)))
    options = parser.parse_args(words)
    made = parser.instantiate(options)
    return kind(**{k: v for k, v in vars(made).items() if k != "config"})


def talk(debug: bool = False) -> None:
    """Sends the package's progress lines to standard error; of warnings, all but one known.

    The one is the trainer's use of a torch name that is on its way out.
    """
    log = logging.getLogger("foundry3d")
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    logging.captureWarnings(True)
    warned = logging.getLogger("py.warnings")
    warned.addFilter(lambda record: "LeafSpec" not in record.getMessage())


def main(arguments: list[str] | None = None) -> None:
    """Runs `foundry3d`; exits with 2 after one line when the input cannot be used, or 1 if part."""
    arguments = sys.argv[1:] if arguments is None else arguments
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
        talk(debug)
        module, name = COMMANDS[command][1].split(":")
        getattr(importlib.import_module(module), name)(options)
    except InputError as error:
        fail(str(error), error.status)
    except OSError as error:
        fail(f"{error}; what was complete before is kept")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
