"""Python in a process of its own where some packages seem not to be installed."""

import os
import subprocess
import sys
from collections.abc import Iterable

START = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in {names!r}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
"""


def without(modules: Iterable[str], code: str, *arguments: str) -> str:
    """What the code prints where these modules cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", START.format(names=set(modules)) + code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
