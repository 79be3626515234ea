"""Options of the command line: the words after a command become its configuration record.

Options are the fields of the record, earlier names are recognised, and every error is one line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin, get_type_hints

from foundry3d.config import ClusterConfig, protocols
from foundry3d.config.earlier import RENAMED
from foundry3d.config.settings import find_recipes, guard_values, read_yaml
from foundry3d.report.terminal import one_line

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

UNKNOWN = (
    r"unrecognized arguments: --([\w.]+)",
    r"^Option '([\w.]+)'",
    r"Group '([\w.]+)' does not accept option '([\w.]+)'",
    r'^Parser key "([\w.]+)"',
)
"""How the parser names an option that it does not know."""


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

    This allows `--resume`, `--models a b`, `--backbone.point_widths 32 64 128`, `--cluster local`.
    Words before the first option belong to the record's first field: `foundry3d convert PATH`.
    """
    if arguments and not arguments[0].startswith("-") and fields(kind):
        arguments = [f"--{fields(kind)[0].name}", *arguments]
    words: list[str] = []
    i = 0
    while i < len(arguments):
        word = arguments[i]
        values = list(takewhile(lambda w: not w.startswith("--"), arguments[i + 1 :]))
        hint = option_type(kind, word[2:]) if word.startswith("--") else None
        if hint is ClusterConfig and values and not os.path.isfile(values[0]):
            word, hint = f"{word}.engine", None
        words.append(word)
        if hint in (bool, bool | None) and not values:
            words.append("true")
        elif (held := item_type(hint)) and values not in ([], ["null"]) and values[0][0] != "[":
            words.append(json.dumps(values) if held is str else f"[{', '.join(values)}]")
            i += len(values)
        i += 1
    return words


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


def _made(command: str, kind: type, text: str) -> ArgumentParser:
    """The parser of a command, its options the fields of a record."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            fail(f"{command}: {plain_error(kind, message)}")

    parser = Parser(prog=f"foundry3d {command}", description=text, allow_abbrev=False)
    parser.add_class_arguments(kind, as_group=False)
    parser.add_argument("--config", action="config", help="a recipe (YAML)")
    return parser


_kept = cache(_made)


def read(command: str, kind: type, text: str, arguments: list[str]) -> Any:
    """The configuration record of a command, made from its arguments; exits where they are wrong.

    Args:
        command: its name.
        kind: of the record.
        text: what the command does, for --help.
        arguments: what follows the command's name.
    """
    guard_values()
    parser = _kept(command, kind, text)
    words = plain_words(kind, find_recipes(arguments))
    for word, value in pairwise(part for w in words for part in w.split("=", 1)):
        group = word.startswith("--") and is_dataclass(option_type(kind, word[2:]))
        if group and os.path.isfile(value):  # the settings of a group in a file
            read_yaml(Path(value))
    if option_type(kind, "protocol") is not None:
        asked = parser.parse_args([word for word in words if not word.startswith("--print_config")])
        if asked["protocol"] is not None:  # its settings become the defaults
            parser = _made(command, kind, text)
            settings = protocols.find(asked["protocol"], command).settings
            parser.set_defaults(dict(protocols.dotted(settings)))
    options = parser.parse_args(words)
    made = parser.instantiate(options)
    return kind(**{k: v for k, v in vars(made).items() if k != "config"})
