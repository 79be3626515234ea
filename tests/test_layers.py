"""Rooms import downwards only, files in no circle, and importing costs nothing."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import foundry3d

PACKAGE = Path(foundry3d.__file__).parent
FLOORS = [
    {"errors", "writing"},
    {"extras"},
    {"config", "geometry", "report"},
    {"cluster", "data", "models", "transforms"},
    {"baselines", "scenes"},
    {"heads"},
    {"inference"},
    {"checkpoints"},
    {"training", "embed", "export"},
    {"evaluation"},
    {"paper"},
    {"bench"},
    {"demo", "doctor", "sklearn"},
    {"options"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that this one imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports inside the package are absolute"
            base = node.module or ""
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    found = {other for other in found if other in known and other not in (name, "foundry3d")}
    return {a for a in found if not any(b.startswith(a + ".") for b in found)}


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items() if name != "foundry3d"}


def room(name: str) -> str:
    return name.split(".")[1]


def test_rooms_are_known_and_import_downwards() -> None:
    for name, others in graph().items():
        for other in others:
            if room(other) != room(name):
                assert FLOOR[room(other)] < FLOOR[room(name)], f"{name} imports {other}"


def test_no_circle_of_files() -> None:
    left = graph()
    while True:  # a file without imports among the rest is in no circle
        free = {name for name, others in left.items() if not others & left.keys()}
        if not free:
            break
        left = {name: others for name, others in left.items() if name not in free}
    assert not left, f"these files import each other: {sorted(left)}"


def test_a_circle_would_be_found(monkeypatch) -> None:
    found = {"foundry3d.a": {"foundry3d.b"}, "foundry3d.b": {"foundry3d.a"}}
    monkeypatch.setattr(sys.modules[__name__], "graph", lambda: found)
    try:
        test_no_circle_of_files()
    except AssertionError as error:
        assert "foundry3d.a" in str(error)
    else:
        raise AssertionError("the circle was not found")


def test_importing_is_free() -> None:
    code = "import foundry3d, foundry3d.cli, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_documented_modules_that_moved_are_found_under_both_names() -> None:
    for old, new in foundry3d._MOVED.items():
        assert importlib.import_module(old) is importlib.import_module(new)
    from foundry3d.student import Student
    from foundry3d.tasks.distill import distill

    assert Student is foundry3d.Student
    assert distill is foundry3d.distill
