"""Progress lines for long loops: how much is done, and how long the rest will take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

log = logging.getLogger("foundry3d")
T = TypeVar("T")

EVERY = 30.0
"""Least number of seconds between two lines."""


def with_progress(items: Sequence[T], doing: str, what: str = "files") -> Iterator[T]:
    """The items one by one; now and then a line reports the progress and the time left.

    The line begins with `doing`, e.g. `embedded`, and calls the items `what`.
    """
    began = reported = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - reported >= EVERY:
            reported = now
            left = round((now - began) / done * (len(items) - done))
            log.info("%s %d/%d %s  %d:%02d left", doing, done, len(items), what, *divmod(left, 60))
        yield item
