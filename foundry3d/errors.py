"""The exceptions that users see; messages say what was expected, what came and what to do."""


class InputError(ValueError):
    """An input (a file, an option, an array) cannot be used.

    The command line prints the message as one line and exits with `status`. Any other exception
    is a bug in the package and keeps its traceback.
    """

    status = 2


class PartialFailure(InputError):
    """Some of many inputs cannot be used; the results for the others are complete and kept."""

    status = 1
