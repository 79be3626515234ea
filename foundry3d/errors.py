"""The exceptions that users see; messages say what was expected, what came and what to do."""

from __future__ import annotations

import re


class InputError(ValueError):
    """An input (a file, an option, an array) cannot be used.

    The command line prints the message as one line and exits with `status`. Any other exception
    is a bug in the package and keeps its traceback.
    """

    status = 2


class PartialFailure(InputError):
    """Some of many inputs cannot be used; the results for the others are complete and kept."""

    status = 1


def lack_of_memory(error: Exception) -> str | None:
    """A sentence about the memory that was lacking; None if the error is about something else.

    Python raises `MemoryError`, torch a `RuntimeError` that says so.
    """
    reason = next(iter(str(error).splitlines()), "no more is left")
    if not isinstance(error, MemoryError) and not re.search("allocate|size.*overflow", reason):
        return None
    return f"not enough memory ({reason}); choose smaller sizes; what was complete before is kept"
