"""The parts of a release agree: versions, lowest versions, workflows, the table of commands."""

import re
import tomllib
from pathlib import Path

import yaml

import foundry3d
from foundry3d import cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def lowest_allowed() -> dict[str, str]:
    """The lowest version that pyproject.toml allows of each package that users install."""
    extras = PROJECT["optional-dependencies"]
    others = {"all", "dev", "docs", "executorch"}
    optional = [text for name, texts in extras.items() if name not in others for text in texts]
    found = {}
    for text in PROJECT["dependencies"] + optional:
        name, version = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", text).groups()
        found[name.lower()] = version
    return found


def test_the_lowest_versions_are_those_of_the_project() -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    assert pinned == lowest_allowed()
    assert list(pinned) == sorted(pinned)


def test_the_version_stands_in_one_place() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert cited["version"] == changes == PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+\w*", foundry3d.__version__)
    assert cited["license"] == PROJECT["license"]
    paper = cited["preferred-citation"]
    assert paper["authors"][0]["family-names"] == "Letellier"


def test_workflows_use_files_that_exist_and_the_python_versions_of_the_project() -> None:
    jobs = {}
    for path in WORKFLOWS:
        jobs |= yaml.safe_load(path.read_text())["jobs"]
        for named in re.findall(r"(?:bash|python|-c) (\.?[\w/.-]+\.?\w+)", path.read_text()):
            if "/" in named or named.endswith(".txt"):
                assert (ROOT / named).is_file(), f"{path.name} runs {named}"
    declared = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if ":: 3." in c]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert matrix["python"] == declared
    assert {"ubuntu-latest", "ubuntu-24.04-arm", "macos-latest", "windows-latest"} == set(
        matrix["os"]
    )
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_the_table_of_commands_is_the_current_one() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert cli.with_commands(page) == page, "run make commands"
    for name in cli.COMMANDS:
        assert f"| `foundry3d {name}` |" in page
    emptied = re.sub(r"\| `foundry3d .*\n", "", page)
    assert cli.with_commands(emptied) == page
