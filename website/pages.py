"""Writes the pages of the documentation site into a folder, for `zensical build`.

They are those of `docs/`, with links where they name each other, `CONTRIBUTING.md` and
`CHANGELOG.md`. Some have a place that is filled: by the results of the README, by every option of
the command line, by the public names.

    python website/pages.py build/docs
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonargparse import SUPPRESS, ArgumentParser

import foundry3d
from foundry3d import cli

ROOT = Path(__file__).parents[1]
COPIED = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the root that become pages, and their names there."""
NAMED = re.compile(r"`docs/([\w-]+\.md)`(?!\])")
"""How pages name each other in running text."""

GROUPS = {
    "Models": (
        "Backbone", "BackboneConfig", "Student", "StudentConfig", "Truncated", "Teacher", "Tokens",
        "Budget",
    ),
    "Saved models": ("load", "save", "from_pretrained", "save_pretrained", "load_foreign"),
    "Features": ("embed_clouds", "compile", "Stream"),
    "Training and scores": ("pretrain", "distill", "probe"),
}  # fmt: skip
"""Headings of the Python page; public names that are in none follow under "More"."""
MODULES = (
    "foundry3d.transforms",
    "foundry3d.data.procedural.generation",
    "foundry3d.models.upsample",
    "foundry3d.scenes.scene",
    "foundry3d.scenes.windows",
    "foundry3d.scenes.dense",
    "foundry3d.scenes.memory",
)
"""Modules that the guides import functions from."""


def titles(pages: dict[str, str]) -> dict[str, str]:
    """The first heading of every page, by file name."""
    return {name: text.split("\n", 1)[0].removeprefix("# ") for name, text in pages.items()}


def linked(text: str, title_of: dict[str, str]) -> str:
    """The text with a link, of the page's title, wherever it names a page as `docs/NAME.md`."""
    for name, page in COPIED.items():
        text = text.replace(f"](../{name}", f"]({page}")

    def link(found: re.Match[str]) -> str:
        name = found[1]
        return f"[{title_of[name]}]({name})" if name in title_of else found[0]

    return NAMED.sub(link, text)


def default_text(value: Any) -> str:
    """A default as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(default_text, value))
    return str(value)


def kind_text(kind: Any) -> str:
    """What an option takes, in words."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return " | ".join(map(str, parts))
    if get_origin(kind) is tuple:
        each = [kind_text(part) for part in parts if part is not ...]
        return f"{each[0]} ..." if ... in parts else " ".join(each)
    if parts:
        return " | ".join(map(kind_text, parts))
    return "null" if kind is type(None) else kind.__name__


def prose(text: str) -> str:
    """Plain text as Markdown: what is not between backticks is taken literally."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [re.sub(r"([*_\[\]|])", r"\\\1", escape(part, quote=False)) for part in parts[::2]]
    return "`".join(parts)


def options_of(command: str) -> Iterator[tuple[str, list[Any]]]:
    """Headings of the groups of a command's options, with the options of each."""
    parser = ArgumentParser(allow_abbrev=False)
    parser.add_class_arguments(cli.COMMANDS[command].options, as_group=False)
    for group in parser._action_groups:  # argparse has no public list of them
        actions = [action for action in group._group_actions if action.default != SUPPRESS]
        if actions:
            yield ("" if group.title == "options" else group.title or ""), actions


def option_text(action: Any) -> str:
    """An option as an entry of a definition list: name, what it takes, default, meaning."""
    kind, default = getattr(action, "_typehint", None), default_text(action.default)
    takes = f" *{prose(kind_text(kind))}*" if kind else ""
    given = f"default `{default}`" if default else "no default"
    return f"`{action.option_strings[-1]}`{takes}, {given}\n:   {prose(action.help or '')}"


def options() -> str:
    """Every command with its options, as Markdown."""
    parts = []
    for name, command in cli.COMMANDS.items():
        parts += [f"## foundry3d {name}", prose(command.text)]
        for heading, actions in options_of(name):
            group = actions[0].option_strings[-1].rpartition(".")[0]
            parts += [f"**`{group}`**: {prose(heading)}"] if heading else []
            parts += [option_text(action) for action in actions]
    return "\n\n".join(parts)


def public_names() -> str:
    """The public names and the modules of the guides, as Markdown for mkdocstrings."""
    grouped = [name for names in GROUPS.values() for name in names]
    more = tuple(name for name in foundry3d.__all__ if name not in grouped)
    lines = []
    for heading, names in (GROUPS | {"More": more}).items():
        lines += [f"## {heading}", *(f"::: foundry3d.{name}" for name in names)]
    lines += ["## Modules", "Functions that the guides use.", *(f"::: {m}" for m in MODULES)]
    return "\n\n".join(lines)


def results() -> str:
    """The results table of the README, with its protocol."""
    text = (ROOT / "README.md").read_text()
    return text.split("<!-- results: begin -->")[1].split("<!-- results: end -->")[0].strip()


FILLED: dict[str, tuple[str, Callable[[], str]]] = {
    "index.md": ("<!-- the results table of README.md -->", results),
    "options.md": ("<!-- the options of every command -->", options),
    "python.md": ("<!-- the public names -->", public_names),
}
"""Pages with a place that is filled from the code: the mark of the place, and what fills it."""


def write(folder: Path) -> None:
    """Writes all pages, figures and styles into the folder, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    shutil.copy(ROOT / "website" / "site.css", folder)
    sources = {page: ROOT / name for name, page in COPIED.items()}
    sources |= {path.name: path for path in sorted((ROOT / "docs").glob("*.md"))}
    pages = {name: path.read_text() for name, path in sources.items()}
    for name, (mark, fill) in FILLED.items():
        before, after = pages[name].split(mark)
        pages[name] = before + fill() + after
    title_of = titles(pages)
    for name, text in pages.items():
        (folder / name).write_text(linked(text, title_of))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
