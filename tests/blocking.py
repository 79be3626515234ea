"""Python in a process of its own where some packages seem not to be installed."""

import os
import subprocess
import sys
from collections.abc import Iterable

START = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def without(modules: Iterable[str], code: str, *arguments: str) -> str:
    """What the code prints where these modules cannot be imported."""
    script = START.format(names=set(modules)) + code
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
