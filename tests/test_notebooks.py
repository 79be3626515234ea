"""The notebooks run from their first cell to the last, at small sizes, and draw."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

NOTEBOOKS = Path(__file__).parents[1] / "examples" / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """One process for all notebooks, so that torch is imported and a model is trained once."""
    from jupyter_client.manager import start_new_kernel

    environment = os.environ | {"FOUNDRY3D_SMALL": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    manager, client = start_new_kernel(cwd=str(NOTEBOOKS), env=environment)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.context.destroy()


def test_there_are_four_and_each_begins_with_its_installation() -> None:
    assert len(PATHS) == 4
    for path in PATHS:
        code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        assert [bool(c.metadata.get("tags")) for c in code] == [True] + [False] * (len(code) - 1)
        assert "%pip install" in code[0].source
        assert path.stat().st_size < 300_000


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_runs(path: Path, kernel: Any) -> None:
    notebook = nbformat.read(path, 4)
    notebook.cells = [c for c in notebook.cells if "install" not in c.metadata.get("tags", [])]
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    manager, client = kernel
    runner = nbclient.NotebookClient(notebook, timeout=120, km=manager)
    runner.kc = client
    runner.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
