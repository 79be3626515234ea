"""Work for the tasks of test_cluster.py; a module that their processes import quickly."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from foundry3d.errors import InputError


def halves(opened: Path) -> Callable[[int], float]:
    """The half of an even number; 13 ends its process."""
    with open(opened, "a") as file:
        file.write(".")

    def half(number: int) -> float:
        if number == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if number % 2:
            raise InputError(f"{number} is\nodd")
        return number / 2

    return half
