"""The exception that users see; its message says what was expected, what came and what to do."""

from __future__ import annotations


class InputError(ValueError):
    """A file, an option or an array cannot be used.

    The command line prints the message as one line. Any other exception is a bug.
    """
