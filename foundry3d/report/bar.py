"""Progress of a phase in one line: a bar in a terminal, a plain line elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from tqdm import tqdm

log = logging.getLogger("foundry3d")

FORMAT = (
    "{desc}  {percentage:3.0f} %|{bar:24}| {n_fmt}/{total_fmt} {unit}, {elapsed} + {remaining}"
    "{postfix}"
)


class Bar:
    """A phase that is under way.

    In a terminal its line is redrawn in place. Elsewhere a line is logged when it ends.

    Args:
        text: what is done.
        total: steps of the phase.
        unit: what a step is called.
        stream: of the terminal; None = standard error as the process got it, because the command
            line escapes what would move a terminal's cursor.
    """

    def __init__(
        self, text: str, total: int, *, unit: str = "steps", stream: TextIO | None = None
    ) -> None:
        stream = stream or sys.__stderr__
        self.text, self.unit, self.note = text, unit, ""
        self.began = time.monotonic()
        self.drawn = stream is not None and stream.isatty()
        self.line = tqdm(
            desc=text, total=total, unit=unit, file=stream, bar_format=FORMAT, dynamic_ncols=True,
            disable=not self.drawn, leave=True,
        )  # fmt: skip
        self.done = 0

    def step(self, note: str = "") -> None:
        """One step more, with what is shown behind the bar."""
        self.done, self.note = self.done + 1, note
        if note:
            self.line.set_postfix_str(note, refresh=False)
        self.line.update()

    def close(self) -> None:
        """Ends the line."""
        self.line.close()
        if not self.drawn:
            seconds = round(time.monotonic() - self.began)
            note = f", {self.note}" if self.note else ""
            log.info(
                "%s: %d %s in %d:%02d%s",
                self.text,
                self.done,
                self.unit,
                *divmod(seconds, 60),
                note,
            )
