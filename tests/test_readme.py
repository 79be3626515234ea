"""What the README, the pages of the documentation and the examples say runs."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from foundry3d import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands() -> set[str]:
    """Every command that a page shows, on one line."""
    code = "\n".join(block for page in PAGES for block in blocks(page, "bash"))
    lines = code.replace("\\\n", " ").splitlines()
    return {line for line in lines if line.startswith("foundry3d ")}


def test_python_of_the_first_pages_runs(capsys: pytest.CaptureFixture) -> None:
    first = "".join(blocks(ROOT / "docs" / "first-features.md", "python"))
    assert first.startswith("".join(blocks(ROOT / "README.md", "python")))
    exec(compile(first, "first-features.md", "exec"), {})
    assert "torch.Size([4, 64, 384])" in capsys.readouterr().out


def test_commands_of_all_pages_parse() -> None:
    found = commands()
    assert len(found) > 20
    for line in sorted(found):
        words = shlex.split(line, comments=True)[1:]
        cli.read_options(*cli.split_command(words))


def test_tables_of_commands_name_commands() -> None:
    table = (ROOT / "docs" / "command-line.md").read_text()
    named = re.findall(r"^\| `foundry3d ([\w ]+)`", table, re.MULTILINE)
    assert len(named) > 10
    assert [name for name in named if name not in cli.COMMANDS] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run_and_stay_short(path: Path, capsys: pytest.CaptureFixture) -> None:
    assert len(path.read_text().splitlines()) < 60
    module = runpy.run_path(str(path))
    trained = {"epochs": 1, "clouds": 64}
    small = {"02_distill": trained, "03_own_teacher": trained, "04_budgets": {"points": 256}}
    module["main"](**small.get(path.stem, {}))
    assert capsys.readouterr().out.strip()
