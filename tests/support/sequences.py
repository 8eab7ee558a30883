"""Random pools of token sequences, for tests of the engine."""

import numpy as np

from sf_ray.engine.sequences import TokenSequence


def random_sequences(count: int, seed: int = 0) -> list[TokenSequence]:
    """Sequences of 2 to 119 tokens that have nothing in common; some have no scored token."""
    rng = np.random.default_rng(seed)
    return [
        TokenSequence.scored_from(rng.integers(0, 300, length).astype(np.int32), int(first))
        for length, first in zip(
            rng.integers(2, 120, count), rng.integers(1, 60, count), strict=True
        )
    ]


def family(seed: int, most: int = 40) -> list[TokenSequence]:
    """At most `most` sequences that are equal, begin alike, or begin each other."""
    rng = np.random.default_rng(seed)
    pool = [rng.integers(0, 300, rng.integers(2, 40)).astype(np.int32)]
    for _ in range(int(rng.integers(1, most))):
        known = pool[rng.integers(len(pool))]
        kept = known[: rng.integers(0, len(known) + 1)]
        pool.append(np.append(kept, rng.integers(0, 300, rng.integers(0, 30))).astype(np.int32))
    firsts = [rng.integers(1, max(len(ids), 2)) for ids in pool]
    return [
        TokenSequence.scored_from(ids, int(first)) for ids, first in zip(pool, firsts, strict=True)
    ]
