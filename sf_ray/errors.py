"""The errors a user can act on. The command line prints their text without a traceback."""


class SfRayError(Exception):
    """Something about the input, the storage or the model stops the job (exit code 1)."""

    exit_code = 1


class UsageError(SfRayError):
    """The command or its configuration is wrong (exit code 2)."""

    exit_code = 2
