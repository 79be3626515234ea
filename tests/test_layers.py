"""Imports point downwards only, and importing costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "foundry3d"
FLOORS = [
    {"errors", "writing"},
    {"config", "protocols"},
    {"threads", "geometry_scan", "geometry_tree", "geometry_search"},
    {"geometry", "geometry_cpu", "geometry_cuda", "transforms"},
    {"data"},
    {
        "tokenizer",
        "vit",
        "supertokens",
        "gate",
        "gated",
        "latency",
        "backbone",
        "student",
        "reduce",
        "jepa",
        "mae",
        "upsample",
        "segmenter",
        "heads",
        "scenes",
        "scene_memory",
        "scene_windows",
        "scene_dense",
        "kernels",
        "compiled",
    },
    {"foreign", "foreign_files", "foreign_tables", "checkpoint", "results", "metrics"},
    {"tasks"},
    {
        "formula",
        "formula_table",
        "cost",
        "datasets",
        "figures",
        "figures_scene",
        "report",
        "embed",
        "embed_reading",
        "embed_scene",
        "embed_files",
        "hub",
        "budgets",
    },
    {"demo", "suite", "sweep", "bench"},
    {"cli"},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


def test_imports_point_downwards() -> None:
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("foundry3d"):
                parts = (node.module or "").split(".")
                seen = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
                for other in seen:
                    assert FLOOR[other] <= FLOOR[room], f"{path.name} imports {other}"


def test_importing_is_free() -> None:
    code = "import foundry3d, foundry3d.cli, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
