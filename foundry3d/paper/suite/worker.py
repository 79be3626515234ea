"""Runs one unit of a suite in this process: python -m foundry3d.paper.suite.worker JOB ROW."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

from foundry3d.config import SuiteConfig, from_dict
from foundry3d.errors import InputError
from foundry3d.paper.suite.cells import Cell
from foundry3d.paper.suite.run import run_unit
from foundry3d.training.engine import retain_memory
from foundry3d.writing import replacing


def end_with_parent() -> None:
    """Ends this process when its standard input is closed."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Runs the unit of a job file and writes its row; an error is one line on standard error."""
    job, answer = map(Path, sys.argv[1:])
    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    retain_memory()
    content = json.loads(job.read_text())
    unit = content["unit"]
    try:
        row = run_unit(
            from_dict(SuiteConfig, content["config"]),
            unit if isinstance(unit, str) else Cell(*unit),
        )
    except InputError as error:
        sys.exit(" ".join(str(error).split()))
    with replacing(answer) as partial:
        partial.write_text(json.dumps(row))
    sys.stdout.flush()
    os._exit(0)  # the waiting thread would keep the process alive


if __name__ == "__main__":
    main()
