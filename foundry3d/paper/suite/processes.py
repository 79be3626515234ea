"""Processes that run units of a suite one after another, so that each imports the package once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foundry3d.writing import replacing


class Worker:
    """A process of one thread; see `foundry3d.paper.suite.worker`."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """The process, started if there is none or it has ended.

        Its standard input closes however this process ends, and then it ends too.
        """
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "foundry3d.paper.suite.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        return self.process

    def kill(self) -> None:
        """Ends the process; the next unit starts another one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """Ends the process and closes its pipes; no unit may be running."""
        self.kill()
        if self.process is not None:
            with suppress(BrokenPipeError), self.process:
                pass
            self.process = None

    def run(self, folder: Path, content: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """Runs a unit.

        Args:
            folder: of the unit, for its job, its row and its messages.
            content: of the job.

        Returns:
            The row (models have none), and a sentence on an error or the end of the process, which
            is empty where all is well.
        """
        folder.mkdir(parents=True, exist_ok=True)
        job, answer, messages = (folder / name for name in ("job.json", "row.json", "log.txt"))
        answer.unlink(missing_ok=True)
        with replacing(job) as partial:
            partial.write_text(json.dumps(content))
        messages.touch()
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        words = json.dumps([str(job), str(answer), str(messages)])
        with suppress(BrokenPipeError):
            print(words, file=process.stdin, flush=True)
        said = process.stdout.readline().strip()
        if said == "0":
            return json.loads(answer.read_text()), ""
        why = "" if said else f"its process ended with {process.wait()}; "
        lines = messages.read_text().splitlines() or ["no message"]
        return None, f"{lines[-1]} ({why}{messages})"


@contextmanager
def workers_of(count: int) -> Iterator[list[Worker]]:
    """Workers whose processes start when they are needed; none for a count of one."""
    workers = [Worker() for _ in range(count)] if count > 1 else []
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()
