"""Why a report shows a row, in which order such rows stand, and under which heading. Plain values.

The values are those of summary.json.
"""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from sf_ray.corpus.status import Status

_HIGHEST_FIRST = True


class ScoreKind(Enum):
    """A row is shown because of its IFD.

    Attributes:
        title: Heading of such rows.
        about: A sentence below the heading; "" for none.
        highest_first: Whether the highest IFD comes first.
    """

    title: str
    about: str
    highest_first: bool

    def __new__(  # noqa: D102 - the values that follow
        cls, value: str, title: str = "", about: str = "", highest_first: bool = False
    ) -> "ScoreKind":
        kind = object.__new__(cls)
        kind._value_ = value
        kind.title = title
        kind.about = about
        kind.highest_first = highest_first
        return kind

    BEST = "best", "Kept, with the highest IFD", "", _HIGHEST_FIRST
    LAST_KEPT = "last kept", "The last ones that are kept", "Just above the cut-off."
    FIRST_MISSED = (
        "first missed",
        "The first ones that are left out",
        "Just below the cut-off.",
        _HIGHEST_FIRST,
    )
    BELOW_1 = (
        "below 1",
        "Just below 1",
        "The prompt helps the model hardly at all.",
        _HIGHEST_FIRST,
    )
    ABOVE_1 = (
        "above 1",
        "Just above 1",
        "The answer is less likely with its prompt than without: it may not belong to it.",
    )
    LOWEST = (
        "lowest",
        "The lowest IFD",
        "The prompt says nearly everything: there is little to learn.",
    )


@dataclass(frozen=True)
class StatusKind:
    """A row is shown because it has no score; same attributes as `ScoreKind`."""

    status: Status
    prefix: ClassVar[str] = "status "
    # All of them lack an IFD: they are shown in the order of the corpus.
    highest_first: ClassVar[bool] = False

    @property
    def value(self) -> str:
        """As summary.json has it."""
        return f"{self.prefix}{self.status.value}"

    @property
    def title(self) -> str:
        """Heading of such rows."""
        return f"Status {self.status.value}"

    @property
    def about(self) -> str:
        """A sentence below the heading."""
        return f"{self.status.meaning}."


RowKind = ScoreKind | StatusKind


def kind_of(value: str) -> RowKind:
    """The kind with a value.

    Raises:
        ValueError: There is none.
    """
    if value.startswith(StatusKind.prefix):
        return StatusKind(Status(value.removeprefix(StatusKind.prefix)))
    return ScoreKind(value)
