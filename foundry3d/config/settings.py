"""Settings in YAML: recipes, files of users, and values on the command line.

Aliases are refused wherever an anchor gives them a meaning: a few lines of them stand for any
amount of memory.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import yaml

from foundry3d.config.earlier import left_out
from foundry3d.config.records import from_dict, require
from foundry3d.errors import InputError

T = TypeVar("T")


def _refuse_aliases(text: str) -> None:
    """Raises `YAMLError` for an alias that stands for something."""
    anchors: set[str] = set()
    for event in yaml.parse(text, yaml.SafeLoader) if "&" in text and "*" in text else ():
        if not isinstance(event, yaml.NodeEvent) or event.anchor is None:
            continue
        name = event.anchor
        if isinstance(event, yaml.AliasEvent) and name in anchors:
            raise yaml.YAMLError(f"an alias, *{name}, is not read; write out what it stands for")
        anchors.add(name)


@functools.cache
def guard_values() -> None:
    """Makes the parser of the command line refuse aliases, and take any name in a JSON list."""
    from jsonargparse import get_loader, set_loader

    plain = get_loader("yaml")

    def load(text: str) -> Any:
        if text.startswith('["'):  # YAML has no way to write a byte that is not UTF-8
            try:
                return json.loads(text)
            except ValueError:
                pass
        _refuse_aliases(text)
        return plain(text)

    set_loader("yaml", load, (yaml.YAMLError, RecursionError))


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


MOST_YAML = 2**17
"""Bytes of the largest file of settings; a recipe of every option of a suite has 10 kB."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        InputError: the file is not UTF-8, damaged, empty, larger than `MOST_YAML`, holds something
            else than named settings, or has an alias or a tag of a Python object.
    """
    advice = "write 'option: value' lines; --print_config shows them all"
    try:
        with open(path, "rb") as stream:
            content = stream.read(MOST_YAML + 1)
        require(
            len(content) <= MOST_YAML, f"{path}: a file of settings has at most 128 kB; {advice}"
        )
        text = content.decode("utf-8-sig")
        require("\0" not in text, f"{path}: expected text, got NUL bytes; {advice}")
        _refuse_aliases(text)
        values = yaml.safe_load(text)
    except (RecursionError, UnicodeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected settings in YAML ({error}); {advice}") from None
    require(
        isinstance(values, dict) and all(isinstance(name, str) for name in values),
        f"{path}: expected named settings, got {_kind(values)}; {advice}",
    )
    return values


RECIPES = Path(__file__).parents[1] / "recipes"


def read_recipe(kind: type[T], name: str) -> T:
    """The record of type `kind` that a recipe of the package (`cpu/pretrain`) describes.

    Raises:
        InputError: no such recipe, or one with keys that `kind` does not have.
    """
    path = RECIPES / f"{name}.yaml"
    require(path.is_file(), f"no recipe {name!r} in the package")
    return from_dict(kind, read_yaml(path))


def is_run(path: Path) -> bool:
    """Whether a file holds all settings of a run, as run folders keep them."""
    with open(path, "rb") as file:
        return file.read(6) == b"# run "


def find_recipes(arguments: list[str]) -> list[str]:
    """Arguments in which each recipe named after --config is replaced by its file.

    A file of that name comes first, then the recipes of the package. Options that the settings of
    an earlier run leave out follow its file.

    Raises:
        InputError: neither is there, or the file holds no settings.
    """
    found: list[str] = []
    for i, argument in enumerate(arguments):
        found.append(argument)
        name = argument.removeprefix("--config=")
        if i and arguments[i - 1] == "--config":
            prefix = ""
        elif name != argument:
            prefix = "--config="
        else:
            continue
        if os.path.isfile(name):
            values = read_yaml(Path(name))
            if is_run(Path(name)):
                found += [f"--{'.'.join(path)}={json.dumps(old)}" for path, old in left_out(values)]
        else:
            packaged = RECIPES / (name if name.endswith(".yaml") else name + ".yaml")
            if not packaged.is_file():
                raise InputError(
                    f"no recipe {name!r}: neither a file nor one of the package's (--help)"
                )
            found[-1] = f"{prefix}{packaged}"
    return found
