"""The exceptions users meet: what was expected, what came, what to do."""


class InputError(ValueError):
    """Something handed in from outside (a file, an option, an array) cannot be used.

    The command line prints its message as one line and exits with `status`; everything else is a
    defect of the package and keeps its traceback.
    """

    status = 2


class PartialFailure(InputError):
    """Some of many inputs cannot be used; what the others gave is complete and kept."""

    status = 1
