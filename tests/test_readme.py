"""What the README and the examples say runs."""

import re
import runpy
from pathlib import Path

import pytest

from foundry3d import cli

ROOT = Path(__file__).parents[1]


def test_readme_python_runs(capsys: pytest.CaptureFixture) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile("".join(blocks), "README.md", "exec"), {})
    assert "torch.Size([4, 64, 384])" in capsys.readouterr().out


def test_readme_commands_parse(capsys: pytest.CaptureFixture) -> None:
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    blocks = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    commands = [line.split() for line in blocks.splitlines() if line.startswith("foundry3d")]
    assert len(commands) >= 3
    for _, *words in commands:
        cli.read_options(*cli.split_command(words))
    for name in re.findall(r"^\| `foundry3d ([\w ]+)`", text, re.MULTILINE):
        assert name in cli.COMMANDS


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run_and_stay_short(path: Path, capsys: pytest.CaptureFixture) -> None:
    assert len(path.read_text().splitlines()) < 60
    module = runpy.run_path(str(path))
    trains = path.stem in ("02_distill", "03_own_teacher")
    small = {"epochs": 1, "clouds": 64} if trains else {}
    module["main"](**small)
    assert capsys.readouterr().out.strip()
