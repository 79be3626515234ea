"""Batches made ready in the background while a step runs, in order and with the same numbers.

One thread is enough: the compiled geometry, torch and NumPy's copies release the interpreter.
What a batch draws comes from the generator of its own step, so it does not matter who draws it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")
END: Any = object()


class Epochs(Sized, Protocol):
    """Batches of one epoch at a time; `sampler` is where Lightning looks for `set_epoch`."""

    sampler: Any

    def __iter__(self) -> Iterator[Any]: ...


def ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The items in order, up to `depth` of them made in a thread before they are asked for.

    Errors of the iterator are raised where its item is asked for. Closing the generator, which an
    error or the end of its use does, waits for the item in work and leaves no thread.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="foundry3d-ahead")
    try:
        waiting = deque(pool.submit(next, items, END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not END:
            waiting.append(pool.submit(next, items, END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def pinned(batch: Any) -> Any:
    """A tensor, or a named tuple of them, in page-locked memory that copies need not wait for."""
    if isinstance(batch, Tensor):
        return batch.pin_memory()
    if isinstance(batch, tuple):
        return type(batch)(*map(pinned, batch))
    return batch


class Loader:
    """What a trainer iterates: batches, made ready for their step, ahead of it.

    Args:
        batches: of an epoch.
        begin: called when an epoch starts; returns what makes the i-th batch of it ready, given i
            and the batch, and may run in another thread.
        depth: batches made ready ahead; 0 = none, each is made when it is asked for.
    """

    def __init__(
        self, batches: Epochs, begin: Callable[[], Callable[[int, Any], Any]], *, depth: int
    ) -> None:
        self.batches, self.begin, self.depth = batches, begin, depth
        self.sampler = batches.sampler
        self.waited = 0.0
        """Seconds that were spent waiting for batches so far."""
        self._running: Generator[Any, None, None] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        self.close()
        ready = self.begin()
        made = (ready(i, batch) for i, batch in enumerate(self.batches))
        source = self._running = ahead(made, self.depth) if self.depth else made
        while True:
            asked = time.perf_counter()
            item = next(source, END)
            self.waited += time.perf_counter() - asked
            if item is END:
                return
            yield item

    def close(self) -> None:
        """Ends the work in the background, if there is any."""
        if self._running is not None:
            self._running.close()
