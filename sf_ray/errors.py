"""The errors a user can act on. The command line prints their text without a traceback."""


class SfRayError(Exception):
    """Something about the input, the storage or the model stops the job (exit code 1)."""

    exit_code = 1


class UsageError(SfRayError):
    """The command or its configuration is wrong (exit code 2)."""

    exit_code = 2


class BadShardError(SfRayError):
    """A shard of the corpus cannot be used; `--on-bad-shard skip` goes on without it.

    Attributes:
        shard: Its relative path.
        reason: What is wrong with it.
    """

    def __init__(self, shard: str, reason: str) -> None:
        super().__init__(
            f"shard {shard}: {reason}; write it again, take it out of the corpus, or go on without "
            "it with --on-bad-shard skip"
        )
        self.shard = shard
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadShardError"], tuple[str, str]]:
        """Two arguments make it, not the one message: it travels between processes."""
        return BadShardError, (self.shard, self.reason)


class BadRowError(SfRayError):
    """A row of a shard is no JSON object; `--on-bad-line skip` goes on without it.

    Attributes:
        shard: Its relative path.
        row: Its number in the shard.
        place: Where an editor shows it, e.g. "line 7".
        reason: What is wrong with it.
    """

    def __init__(self, shard: str, row: int, place: str, reason: str) -> None:
        super().__init__(
            f"shard {shard}, {place}: {reason}; mend it, or go on with --on-bad-line skip, which "
            f"gives row {row} the status bad_row"
        )
        self.shard = shard
        self.row = row
        self.place = place
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadRowError"], tuple[str, int, str, str]]:
        """Four arguments make it, not the one message: it travels between processes."""
        return BadRowError, (self.shard, self.row, self.place, self.reason)


class EngineFailedError(SfRayError):
    """The model cannot score these rows.

    Attributes:
        device_is_lost: Nor any others, in this process.
    """

    def __init__(self, message: str, device_is_lost: bool = False) -> None:
        super().__init__(message)
        self.device_is_lost = device_is_lost


class ClusterError(SfRayError):
    """A worker, an actor or a node was lost, or nothing moves: trying again may help."""


class LeaseError(SfRayError):
    """Another run writes here."""


class TerminatedError(SfRayError):
    """The job was told to end."""

    exit_code = 143  # 128 + SIGTERM, as shells count
