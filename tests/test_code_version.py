"""Rows say the commit of this package, and asking for it runs nothing that a repository names."""

import shutil
import subprocess
from pathlib import Path

import pytest

from foundry3d.report import rows

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *named, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a commit whose settings name a program that leaves a trace."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    (root / "pyproject.toml").write_text('[project]\nname = "foundry3d"\n')
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/trace\n")
    hook.chmod(0o755)
    git(root, "config", "core.fsmonitor", str(hook))
    return root


def placed(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version that is stated where the package lies in this folder."""
    monkeypatch.setattr(rows, "__file__", str(root / "foundry3d" / "report" / "rows.py"))
    return rows.code_version()


def test_the_trace_is_left_by_plain_git(repository: Path, tmp_path: Path) -> None:
    git(repository, "describe", "--always", "--dirty")
    assert (tmp_path / "trace").exists()


def test_the_own_checkout_is_named_without_its_programs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(repository, "rev-parse", "HEAD")[:10]
    (tmp_path / "trace").unlink(missing_ok=True)
    assert placed(repository, monkeypatch).endswith(f"({commit})")
    (repository / "pyproject.toml").write_text('[project]\nname = "foundry3d"\nversion = "1"\n')
    assert placed(repository, monkeypatch).endswith(f"({commit}-dirty)")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("project", [None, '[project]\nname = "other"\n', "project = 3\n", "[["])
def test_no_other_repository_is_asked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: str | None
) -> None:
    (tmp_path / "trace").unlink(missing_ok=True)
    inside = repository / "site-packages"
    inside.mkdir()
    if project is not None:
        (repository / "pyproject.toml").write_text(project)
    (inside / "pyproject.toml").write_text('[project]\nname = "foundry3d"\n')
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.chdir(repository)
    folder = inside if project is None else repository
    assert "(" not in placed(folder, monkeypatch)
    assert not (tmp_path / "trace").exists()
