"""Which rows are dropped so that no two near ones stay: greedy, best row first.

A row is dropped if a better row is near it that is itself kept. So a row stays that is near only to
dropped rows: what is dropped always has a kept row near it, not the end of a chain of near rows.

All rows at once would be compared pair by pair, so they are compared in parts, and a row may be in
several. No part knows alone whether a better row of it is kept, because another part may drop that
one. So the rows are settled in rounds, in which every part says of each row that is still open

    dropped   a better row that is kept is near
    blocked   a better row that is still open is near

and a row that no part drops or blocks is kept. The result is that of the greedy choice over all
pairs that share a part, whatever the order of the parts: each round settles at least the best row
that is open. Of n rows in random order there are about log n rounds (Fischer and Noever 2018,
"Tight analysis of parallel randomized greedy MIS"). Plain arrays: does not know what near means.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.score_range import Positions

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
# Whether rows [n] of a part are near rows [m] of it: [n, m].
Near = Callable[[Indices, Indices], Flags]

# Rows that are compared at once, and with how many: 32 MiB of cosines.
_ROWS, _OTHERS = 1024, 8192


class State(NamedTuple):
    """What is known of all rows.

    Attributes:
        kept: Rows that are certainly kept.
        open: Rows that nobody has decided over; all others are dropped.
    """

    kept: Bitmap
    open: Bitmap


class Verdicts(NamedTuple):
    """What a part says of its open rows.

    Attributes:
        dropped: [n] positions of rows that are near a better row that is kept.
        blocked: [n] positions of rows that are near a better row that is open. Rows that are
            dropped may be among them.
    """

    dropped: Positions
    blocked: Positions

    @classmethod
    def joined(cls, each: Sequence["Verdicts"]) -> "Verdicts":
        """What several parts say, together: each row once."""
        none = np.empty(0, np.int64)
        return cls(
            np.unique(np.concatenate([none, *(verdicts.dropped for verdicts in each)])),
            np.unique(np.concatenate([none, *(verdicts.blocked for verdicts in each)])),
        )


class Settled(NamedTuple):
    """What became of all rows.

    Attributes:
        dropped: The rows that are dropped.
        near_better: The rows near which there is a better one, dropped or kept.
        rounds: How many rounds it took.
    """

    dropped: Bitmap
    near_better: Bitmap
    rounds: int


def settle(rows: int, judge_parts: Callable[[State], Iterable[Verdicts]]) -> Settled:
    """Decides over all rows.

    Args:
        rows: All rows of the corpus.
        judge_parts: What all parts say of the open rows, in any order. A part that blocks no row
            has said all that it knows, and need not be asked again.
    """
    dropped, kept = Bitmap.empty(rows), Bitmap.empty(rows)
    still_open = dropped.others()  # rows in no part are kept after the first round
    near_better, rounds = Bitmap.empty(rows), 0
    while len(still_open):
        blocked = Bitmap.empty(rows)
        for verdicts in judge_parts(State(kept, still_open)):
            dropped.add(verdicts.dropped)
            blocked.add(verdicts.blocked)
        if not rounds:
            near_better = blocked
        kept |= still_open.without(dropped).without(blocked)
        still_open = blocked.without(dropped)
        rounds += 1
    return Settled(dropped, near_better, rounds)


def by_rank(values: NDArray[np.float64], positions: Positions) -> Indices:
    """The order of rows from the best to the worst."""
    return np.lexsort((positions, -values))


def better(
    values: NDArray[np.float64],
    positions: Positions,
    than_values: NDArray[np.float64],
    than_positions: Positions,
) -> Flags:
    """[m, n] whether each of n rows is better than each of m: by its value, then by its place."""
    equal = values == than_values[:, None]
    flags: Flags = (values > than_values[:, None]) | (equal & (positions < than_positions[:, None]))
    return flags


def judge(near: Near, positions: Positions, state: State) -> Verdicts:
    """What a part says of its open rows.

    Args:
        near: Whether rows of the part are near others, by their indices.
        positions: [n] of the rows of the part, the best row first.
        state: What is known of all rows.
    """
    kept = np.flatnonzero(state.kept.contains(positions))
    dropped, blocked = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    free = np.empty(0, np.int64)
    for rows in _blocks(np.flatnonzero(state.open.contains(positions)), _ROWS):
        is_dropped = _near_any_better(near, rows, kept)
        dropped.append(rows[is_dropped])
        rows = rows[~is_dropped]
        # The rows that nothing blocks first: where many rows are near each other, nearly all of
        # them are near one of these, and need not be compared with the many.
        is_blocked = _near_any_better(near, rows, free)
        blocked.append(rows[is_blocked])
        rows = rows[~is_blocked]
        is_blocked = _near_any_better(near, rows, np.concatenate([*blocked, rows]))
        blocked.append(rows[is_blocked])
        free = np.concatenate([free, rows[~is_blocked]])
    return Verdicts(positions[np.concatenate(dropped)], positions[np.concatenate(blocked)])


def _near_any_better(near: Near, rows: Indices, others: Indices) -> Flags:
    """[n] whether rows are near at least one of some others that is better than they are."""
    found = np.zeros(len(rows), bool)
    for some in _blocks(others, _OTHERS):
        left = np.flatnonzero(~found)
        if not len(left):
            break
        better = some[some < rows[left[-1]]]
        if len(better):
            is_near = near(rows[left], better) & (better < rows[left, None])
            found[left] = is_near.any(axis=1)
    return found


def _blocks(rows: Indices, size: int) -> Iterator[Indices]:
    return (rows[at : at + size] for at in range(0, len(rows), size))
