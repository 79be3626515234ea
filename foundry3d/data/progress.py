"""How far a long walk over many files is, and how long it will still take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

log = logging.getLogger("foundry3d")
T = TypeVar("T")

EVERY = 30.0
"""Seconds between two lines, at the least."""


def with_progress(items: Sequence[T], doing: str, what: str = "files") -> Iterator[T]:
    """The items, one after the other, with a line about the time left now and then.

    Args:
        items: what is walked over.
        doing: what the line begins with, e.g. `embedded`.
        what: the items are.
    """
    began = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - told >= EVERY:
            told = now
            left = round((now - began) / done * (len(items) - done))
            log.info("%s %d/%d %s  %d:%02d left", doing, done, len(items), what, *divmod(left, 60))
        yield item
