"""The errors that a user can act on; the command line prints their text without a traceback.

Each class has the exit code of a run that it ends. Workers raise these errors too, so every class
can be pickled. Every message is fit to be shown wherever it goes: names and answers that it quotes
can neither forge a line nor steer a terminal, and it has no secrets (`text`).
"""

from sf_ray.text.printable import printable, printable_lines
from sf_ray.text.redaction import redact

# Characters of a line that are shown: a list of names can be as long as the names are.
_LINE = 8000


class SfRayError(Exception):
    """The input, the storage or the model stops the job (exit code 1).

    Attributes:
        message: Text for the user; the first line says what is wrong.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        # Here, so that no place that raises can forget it, and before the error leaves its process:
        # only this one knows the storage options.
        message = redact(printable_lines(message, most=_LINE))
        super().__init__(message)
        # Kept beside `args`, because Ray Data appends advice of its own to the `args` of any
        # exception that leaves a task.
        self.message = message

    def __str__(self) -> str:
        return self.message


class UsageError(SfRayError):
    """The command line or the configuration is wrong (exit code 2)."""

    exit_code = 2


class BadShardError(SfRayError):
    """A shard of the corpus cannot be used; `--on-bad-shard skip` leaves it out.

    Attributes:
        shard: Path of the shard, relative to the corpus.
        reason: What is wrong with the shard.
    """

    def __init__(self, shard: str, reason: str) -> None:
        super().__init__(
            f"shard {printable(shard)}: {reason}; write it again, take it out of the corpus, or "
            "go on without it with --on-bad-shard skip"
        )
        self.shard = shard
        self.reason = redact(printable_lines(reason))

    def __reduce__(self) -> tuple[type["BadShardError"], tuple[str, str]]:
        """Pickles the two arguments: by default Python would pass the one message instead."""
        return BadShardError, (self.shard, self.reason)


class BadRowError(SfRayError):
    """A row of a JSON shard is not a JSON object; `--on-bad-line skip` goes on without the row.

    Attributes:
        shard: Path of the shard, relative to the corpus.
        row: 0-based number of the row in the shard.
        place: Where an editor shows the row, e.g. "line 7".
        reason: What is wrong with the row.
    """

    def __init__(self, shard: str, row: int, place: str, reason: str) -> None:
        super().__init__(
            f"shard {printable(shard)}, {place}: {reason}; mend it, or go on with "
            f"--on-bad-line skip, which gives row {row} the status bad_row"
        )
        self.shard = shard
        self.row = row
        self.place = place
        self.reason = redact(printable_lines(reason))

    def __reduce__(self) -> tuple[type["BadRowError"], tuple[str, int, str, str]]:
        """Pickles the four arguments: by default Python would pass the one message instead."""
        return BadRowError, (self.shard, self.row, self.place, self.reason)


class EngineFailedError(SfRayError):
    """The model cannot score some rows.

    Attributes:
        device_is_lost: Whether this process can score no other rows either.
    """

    def __init__(self, message: str, device_is_lost: bool = False) -> None:
        super().__init__(message)
        self.device_is_lost = device_is_lost


class ClusterError(SfRayError):
    """Ray lost a worker, an actor or a node, or makes no progress; trying again may help."""


class LeaseError(SfRayError):
    """Another run holds the lease on a place that this run wants to write to."""


class TerminatedError(SfRayError):
    """A signal asked the job to end."""

    exit_code = 143  # 128 + SIGTERM, as shells count


def first_line(error: BaseException, cause_first: bool = False) -> str:
    """Shortens an error to one line, so that another error's text can quote it.

    Args:
        error: The error to quote.
        cause_first: Quote the cause of `error` instead, where there is one.

    Returns:
        About 300 characters without secrets; the name of the error's class where the text is
        empty.
    """
    quoted = error.__cause__ if cause_first and error.__cause__ else error
    text = str(quoted).strip()
    # Redacted first: half of a secret would not be found.
    return printable(redact(text.splitlines()[0]), most=300) if text else type(error).__name__
