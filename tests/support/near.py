"""The definition of near copies, taken at its word."""

from collections.abc import Callable

import numpy as np


def dropped_by_hand(values: list[float], near: Callable[[int, int], bool]) -> list[int]:
    """The rows that greedy drops: best first, and each is compared with all that are kept."""
    kept: list[int] = []
    order = sorted(range(len(values)), key=lambda row: (-values[row], row))
    for row in order:
        if not any(near(row, better) for better in kept):
            kept.append(row)
    return sorted(set(range(len(values))) - set(kept))


def jaccard(one: str, other: str, n: int) -> float:
    """Of the runs of n words of two texts without punctuation."""
    a, b = (
        {tuple(words[at : at + n]) for at in range(max(1, len(words) - n + 1))}
        for words in (one.lower().split(), other.lower().split())
    )
    return len(a & b) / len(a | b)


def positions_in(bits: object) -> list[int]:
    """The positions in a bitmap."""
    flags = np.unpackbits(bits.bits, bitorder="little")  # type: ignore[attr-defined]
    return np.flatnonzero(flags).tolist()
