"""The one exception users meet: what was expected, what came, what to do."""


class InputError(ValueError):
    """Something handed in from outside (a file, an option, an array) cannot be used.

    The command line prints its message as one line and exits with status 2; everything else is a
    defect of the package and keeps its traceback.
    """
