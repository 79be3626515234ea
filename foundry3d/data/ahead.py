"""Batches prepared in the background while a step runs, in order and with the same numbers.

One thread is enough: the compiled geometry, torch and NumPy's copies release the interpreter lock.
The random draws of a batch come from the generator of its step, so the thread does not matter.
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
    """The items in order, up to `depth` of them computed in a thread before they are requested.

    An error of the iterator is raised when its item is requested. Closing the generator waits for
    the item being computed and ends the thread.
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
    """A tensor, or a named tuple of tensors, in page-locked memory, for asynchronous copies."""
    if isinstance(batch, Tensor):
        return batch.pin_memory()
    if isinstance(batch, tuple):
        return type(batch)(*map(pinned, batch))
    return batch


class Loader:
    """The iterable that a trainer gets: batches, prepared ahead of their step.

    Args:
        batches: of an epoch.
        begin: called when an epoch starts; returns the function that prepares the i-th batch, given
            i and the batch. That function may run in another thread.
        depth: number of batches prepared ahead; 0 = each is prepared when it is requested.
    """

    def __init__(
        self, batches: Epochs, begin: Callable[[], Callable[[int, Any], Any]], *, depth: int
    ) -> None:
        self.batches, self.begin, self.depth = batches, begin, depth
        self.sampler = batches.sampler
        self.waited = 0.0
        """Seconds spent waiting for batches so far."""
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
        """Stops the background thread, if there is one."""
        if self._running is not None:
            self._running.close()
