"""Which rows of a unit the engine cannot score: found by halving. Pure; knows no engine."""

from dataclasses import dataclass, field

# A single row must fail this often: the node of its first try may have been taken away by chance.
_TRIES = 2


@dataclass
class Bisection:
    """The search for bad rows among `rows` rows.

    Ask for the `next` range, score it, and say that it `passed`. A range that was handed out and
    did not pass has failed, also where the process that had it is gone.

    Attributes:
        bad: Rows that failed on their own.
    """

    rows: int
    bad: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = [(0, self.rows, 0)]
        self._handed_out: tuple[int, int, int] | None = None

    def next(self) -> tuple[int, int] | None:
        """The next range [start, stop) to score; None when all bad rows are known."""
        if self._handed_out is not None:
            self._failed(*self._handed_out)
        self._handed_out = self._left.pop() if self._left else None
        return self._handed_out and self._handed_out[:2]

    @property
    def is_done(self) -> bool:
        """Whether all bad rows are known."""
        return not self._left and self._handed_out is None

    def passed(self) -> None:
        """The range that was handed out last could be scored."""
        self._handed_out = None

    def _failed(self, start: int, stop: int, tries: int) -> None:
        if stop - start > 1:
            middle = (start + stop) // 2
            self._left += [(middle, stop, 0), (start, middle, 0)]
        elif tries + 1 < _TRIES:
            self._left.append((start, stop, tries + 1))
        else:
            self.bad.append(start)
