"""The pages of the documentation site, as they are written before the site is built from them."""

import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import foundry3d
from foundry3d import cli

ROOT = Path(__file__).parents[1]
WRITER = runpy.run_path(str(ROOT / "website" / "pages.py"))
CHECKER = runpy.run_path(str(ROOT / "website" / "links.py"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    WRITER["write"](folder)
    return {path.name: path.read_text() for path in folder.glob("*.md")}


def files(nav: Any) -> Iterator[str]:
    """The files of a navigation, which is nested lists of one-entry tables."""
    if isinstance(nav, str):
        yield nav
    for entry in nav if isinstance(nav, list) else ():
        for value in entry.values():
            yield from files(value)


def test_navigation_and_pages_are_the_same(pages: dict[str, str]) -> None:
    text = (ROOT / "zensical.toml").read_text()
    named = list(files(tomllib.loads(text)["project"]["nav"]))
    assert len(named) == len(set(named))
    assert set(named) <= set(pages)
    assert [name for name in pages if f'"{name}"' not in text] == []


def test_every_command_stands_with_its_options_and_defaults(pages: dict[str, str]) -> None:
    page = pages["options.md"]
    assert [name for name in cli.COMMANDS if f"\n## foundry3d {name}\n" not in page] == []
    distill = page.split("\n## foundry3d distill\n")[1].split("\n## ")[0]
    assert "\n`--student.supertokens` *int*, default `16`\n:   s, learned supertokens." in distill
    assert "\n`--loss` *smooth\\_l1 \\| mse*, default `smooth_l1`\n" in distill
    assert "\n**`--augment`**: " in distill
    assert " object at 0x" not in page


def test_every_public_name_stands_once(pages: dict[str, str]) -> None:
    lines = pages["python.md"].splitlines()
    assert [n for n in foundry3d.__all__ if lines.count(f"::: foundry3d.{n}") != 1] == []


def test_pages_link_where_they_name_each_other(pages: dict[str, str]) -> None:
    linked = WRITER["linked"]
    titles = {"log.md": "Log"}
    assert linked("see `docs/log.md`.", titles) == "see [Log](log.md)."
    assert linked("see `docs/gone.md`.", titles) == "see `docs/gone.md`."
    assert linked("[how](../CONTRIBUTING.md)", titles) == "[how](contributing.md)"
    assert "| `mini-teacher` |" in pages["index.md"], "the results of the README"


def test_text_of_options_is_taken_literally() -> None:
    assert WRITER["prose"]("a_b <out> `<out>/a_b`") == "a\\_b &lt;out&gt; `<out>/a_b`"
    assert WRITER["kind_text"](tuple[int, ...] | None) == "int ... | null"
    assert WRITER["default_text"]((1.0, True, None)) == "1.0 true null"


def test_faults_of_a_built_site_are_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_text('<h1 id="here">A</h1>')
    good = '<a href="sub/#here">a</a><a href="https://example.com">b</a><p id="x"></p><a href="#x">'
    (tmp_path / "index.html").write_text(good)
    assert list(CHECKER["faults"](tmp_path)) == []
    bad = (
        '<a href="gone/">',
        '<a href="sub/#gone">',
        '<img src="gone.png">',
        '<script src="https://example.com/a.js">',
        '<a href="#gone">',
    )
    for tag in bad:
        (tmp_path / "index.html").write_text(tag)
        [fault] = CHECKER["faults"](tmp_path)
        assert "gone" in fault or "another host" in fault
