"""Runs units of a suite one after another: python -m foundry3d.paper.suite.worker.

Every line of standard input is a job as JSON: the file of its settings, the file for its row, and
the file for its messages. The answer is a line on standard output, `0`, or `1` after an error,
whose sentence is the last line of the messages.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundry3d.config import SuiteConfig, from_dict
from foundry3d.errors import InputError
from foundry3d.paper.suite.cells import Cell
from foundry3d.paper.suite.run import run_unit
from foundry3d.training.engine import retain_memory
from foundry3d.writing import replacing


def read_jobs(jobs: queue.SimpleQueue[str]) -> None:
    """Passes lines of standard input on; ends this process when it is closed."""
    for line in sys.stdin:
        jobs.put(line)
    os._exit(1)


@contextmanager
def messages_in(path: Path) -> Iterator[None]:
    """Appends what is written to standard output and standard error to a file."""
    with open(path, "a") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def run_job(job: Path, answer: Path) -> bool:
    """Runs the unit of a job file and writes its row; False after an error, which is printed."""
    content = json.loads(job.read_text())
    unit = content["unit"]
    try:
        row = run_unit(
            from_dict(SuiteConfig, content["config"]),
            unit if isinstance(unit, str) else Cell(*unit),
        )
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return False
    except Exception:
        traceback.print_exc()
        return False
    with replacing(answer) as partial:
        partial.write_text(json.dumps(row))
    return True


def main() -> None:
    """Runs jobs until standard input is closed."""
    answers = os.dup(1)
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=read_jobs, args=(jobs,), daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    retain_memory()
    while True:
        job, answer, messages = map(Path, json.loads(jobs.get()))
        with messages_in(messages):
            done = run_job(job, answer)
        os.write(answers, b"0\n" if done else b"1\n")


if __name__ == "__main__":
    main()
