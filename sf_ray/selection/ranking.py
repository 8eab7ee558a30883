"""What the scores of a corpus decide: for every group of rows, how many are kept and up to where.

Plain records: this module does not know how the rows were counted. No Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sf_ray.scoring.bad_rows import BadRow
from sf_ray.selection.cutoffs import Cutoff, Cutoffs


@dataclass(frozen=True)
class GroupRequest:
    """How many rows of a group are asked for.

    Attributes:
        name: The value that the rows of the group have in the quota's column; "" where all rows
            are one group.
        rows: Rows of the corpus that are in the group.
        wanted: How many of them to keep.
    """

    name: str
    rows: int
    wanted: int


@dataclass(frozen=True)
class GroupCutoff:
    """The rows that were asked for of a group, and the rows that it gets.

    Attributes:
        name: As in the request.
        rows: As in the request.
        wanted: As in the request.
        eligible: Rows that may be kept: `ok`, within the bounds, and no dropped duplicate.
        kept: Rows that the cut-off keeps.
        cutoff: The last of them; None where nothing is kept.
    """

    name: str
    rows: int
    wanted: int
    eligible: int
    kept: int
    cutoff: Cutoff | None


@dataclass(frozen=True)
class Ranking:
    """The statuses of all rows of a corpus, and the cut-off of every group.

    Attributes:
        status_counts: Rows by status.
        bad: The first bad rows of the corpus, a few.
        groups: In the order of the groups' codes; one group where there is no quota.
        valueless: Rows within the bounds that have a score and nothing to be ranked by.
    """

    status_counts: dict[str, int]
    bad: tuple[BadRow, ...]
    groups: tuple[GroupCutoff, ...]
    valueless: int = 0

    @property
    def wanted(self) -> int:
        """Rows that were asked for."""
        return sum(group.wanted for group in self.groups)

    @property
    def eligible(self) -> int:
        """Rows that may be kept."""
        return sum(group.eligible for group in self.groups)

    @property
    def kept(self) -> int:
        """Rows that the cut-offs keep."""
        return sum(group.kept for group in self.groups)

    def joined(self, requests: Sequence[GroupRequest]) -> "Ranking":
        """The same rows in fewer groups, none of which has one cut-off.

        Args:
            requests: What was asked for of each of the fewer groups, which are divided into equally
                many groups of this ranking, one after the other.
        """
        parts = len(self.groups) // max(1, len(requests))
        groups = []
        for number, request in enumerate(requests):
            of_request = self.groups[number * parts : (number + 1) * parts]
            eligible = sum(group.eligible for group in of_request)
            kept = sum(group.kept for group in of_request)
            groups.append(
                GroupCutoff(request.name, request.rows, request.wanted, eligible, kept, None)
            )
        return replace(self, groups=tuple(groups))

    @property
    def cutoffs(self) -> Cutoffs:
        """The cut-offs of the groups, in the order of the groups' codes."""
        return Cutoffs(tuple(group.cutoff for group in self.groups))
