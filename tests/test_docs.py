"""Documentation that is referred to exists: pages, sections, figures."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
SOURCES = [
    path for ending in ("py", "yaml") for path in sorted((ROOT / "foundry3d").rglob(f"*.{ending}"))
]

REFERENCE = re.compile(r"(?<![\w/}*.-])((?:[\w-]+/)*[\w-]+\.md)\b")
SECTION = re.compile(r"docs/([\w/-]+\.md)`?,\s+\"([^\"]+)\"")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:[\w-]+/)+[\w-]+\.(?:py|yaml|csv))`")
WRITTEN = {"table5.md", "captions.md", "search.md", "DATASET.md"}
"""Pages that commands write, and one of another project."""


def references(path: Path) -> Iterator[str]:
    return (name for name in REFERENCE.findall(path.read_text()) if name not in WRITTEN)


def is_a_page(name: str, beside: Path) -> bool:
    return any((folder / name).is_file() for folder in (ROOT, beside))


def headings(page: Path) -> set[str]:
    return set(re.findall(r"^#+ (.+?)\s*$", page.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_refer_to_pages_figures_and_headings_that_exist(path: Path) -> None:
    text = path.read_text()
    missing = [name for name in references(path) if not is_a_page(name, path.parent)]
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = path.parent / name if name else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            missing.append(target)
    assert not missing, f"{path.name} refers to {missing}"


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page end in, as GitHub makes them."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings(page))
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_name_files_that_exist(path: Path) -> None:
    named = FILE.findall(path.read_text())
    places = (ROOT, ROOT / "foundry3d")
    assert [n for n in named if not any((place / n).is_file() for place in places)] == []


def test_the_package_refers_to_pages_that_exist() -> None:
    missing = {
        str(path.relative_to(ROOT)): name
        for path in SOURCES
        for name in references(path)
        if not is_a_page(name, ROOT)
    }
    assert not missing


def test_the_package_names_sections_that_exist() -> None:
    named = [
        (path, page, " ".join(section.split()))
        for path in SOURCES
        for page, section in SECTION.findall(path.read_text())
    ]
    assert len(named) > 5
    for path, page, section in named:
        assert section in headings(ROOT / "docs" / page), f"{path}: {page} has no {section!r}"


def test_a_missing_page_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("see `docs/never-written.md`, `README.md` and the {name}.md that we write\n")
    assert list(references(page)) == ["docs/never-written.md", "README.md"]
    page.write_text("# A\n\n[text](other.md)\n")
    with pytest.raises(AssertionError, match=r"other\.md"):
        test_pages_refer_to_pages_figures_and_headings_that_exist(page)


def test_every_figure_is_shown() -> None:
    shown = {
        (path.parent / target).resolve()
        for path in PAGES
        for target in LINK.findall(path.read_text())
    }
    figures = [path for path in (ROOT / "docs" / "figures").iterdir() if path.suffix == ".png"]
    assert [path.name for path in figures if path.resolve() not in shown] == []


def test_hashed_versions_are_the_pinned_ones() -> None:
    def versions(name: str) -> dict[str, str]:
        found = re.findall(r"^([\w.-]+)==([^\s;+]+)", (ROOT / name).read_text(), re.MULTILINE)
        return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}

    pinned, hashed = versions("constraints.txt"), versions("constraints-hashed.txt")
    assert pinned == hashed
    lines = (ROOT / "constraints-hashed.txt").read_text().splitlines()
    text = [line for line in lines if not line.startswith("#")]
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}$", line) for line in text)
