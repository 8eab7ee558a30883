import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.near import signatures
from sf_ray.selection.near.greedy import settle
from sf_ray.selection.near.signatures import (
    NUMBERS,
    SHINGLE_WORDS,
    ShingleIndex,
    SignedRows,
    band_keys,
    judge_buckets,
    least_equal,
    shingles_of,
    signatures_of,
)
from tests.support.near import dropped_by_hand, jaccard, positions_in

THRESHOLDS = (0.76, 0.8, 0.9, 0.95, 1.0)
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()


def texts_of(count: int, seed: int) -> list[str]:
    """Texts of 30 words, most of which are another one with some words changed."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=30)) for _ in range(max(1, count // 4))]
    while len(texts) < count:
        words = rng.choice(texts).split()
        for _ in range(rng.randint(0, 2)):
            words[rng.randrange(30)] = rng.choice(WORDS)
        texts.append(" ".join(words))
    return texts


def signed(texts: list[str], seed: int) -> SignedRows:
    values = np.random.default_rng(seed).choice([0.2, 0.5, 0.8], len(texts))
    return SignedRows(np.arange(len(texts)), values, signatures_of(map(shingles_of, texts)))


@pytest.mark.parametrize("small", [1, 3, 64])
@given(n=st.integers(2, 30), seed=st.integers(0, 10**6), threshold=st.sampled_from(THRESHOLDS))
def test_bands_miss_no_pair_of_near_signatures(
    small: int, n: int, seed: int, threshold: float
) -> None:
    rows = signed(texts_of(n, seed), seed)
    keys = band_keys(rows.signatures, threshold)
    spread = rows.take(np.repeat(np.arange(n), keys.shape[1]))
    with pytest.MonkeyPatch.context() as patch:  # larger buckets are compared in another way
        patch.setattr(signatures, "_SMALL", small)
        flat = keys.reshape(-1)
        settled = settle(n, lambda state: [judge_buckets(spread, flat, threshold, state)])
    equal = (rows.signatures[:, None] == rows.signatures).sum(axis=2)
    by_hand = dropped_by_hand(
        rows.values.tolist(), lambda a, b: equal[a, b] >= least_equal(threshold)
    )
    assert positions_in(settled.dropped) == by_hand


@given(st.integers(2, 30), st.integers(0, 10**6))
def test_the_worse_rows_of_one_signature_change_nothing(n: int, seed: int) -> None:
    rows = signed(texts_of(n, seed), seed)
    best = rows.without_equal()
    equal = (rows.signatures[:, None] == rows.signatures).sum(axis=2)

    def dropped(positions: list[int]) -> set[int]:
        at = dropped_by_hand(
            rows.values[positions].tolist(),
            lambda a, b: equal[positions[a], positions[b]] >= least_equal(0.8),
        )
        return {positions[row] for row in at}

    left = sorted(best.positions.tolist())
    assert dropped(list(range(n))) == dropped(left) | set(range(n)) - set(left)


def test_signatures_estimate_the_jaccard_index() -> None:
    texts = texts_of(120, 1)
    rows = signed(texts, 1)
    pairs = [(a, b) for a in range(120) for b in range(a)]
    exact = np.array([jaccard(texts[a], texts[b], SHINGLE_WORDS) for a, b in pairs])
    estimated = np.array([(rows.signatures[a] == rows.signatures[b]).mean() for a, b in pairs])
    # The standard error is at most 0.5 / sqrt(128); it is 0 for equal sets.
    assert np.sqrt(np.mean((estimated - exact) ** 2)) < 0.5 / np.sqrt(NUMBERS)
    assert (estimated[exact == 1] == 1).all()


@pytest.mark.parametrize(("threshold", "bands"), [(1.0, 1), (0.95, 7), (0.8, 26), (0.3, 32)])
def test_there_is_one_band_more_than_numbers_that_may_differ(threshold: float, bands: int) -> None:
    assert band_keys(np.zeros((2, NUMBERS), np.uint32), threshold).shape == (2, bands)


@given(st.integers(1, 25), st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 1.0]))
def test_an_index_of_shingles_compares_as_sets_do(n: int, seed: int, threshold: float) -> None:
    texts = texts_of(n, seed)
    values = np.random.default_rng(seed).choice([0.2, 0.5, 0.8], n)
    shingles = [shingles_of(text) for text in texts]
    sampled = list(range(0, n, 2))
    index = ShingleIndex.of(np.array(sampled), values[sampled], [shingles[row] for row in sampled])
    rank = np.argsort(np.lexsort((np.arange(n), -values)))
    expected = [
        any(
            rank[b] < rank[a] and jaccard(texts[a], texts[b], SHINGLE_WORDS) >= threshold - 1e-9
            for b in range(n)
        )
        for a in sampled
    ]
    assert index.near_a_better_one(np.arange(n), values, shingles, threshold).tolist() == expected


def test_a_text_without_words_has_no_shingle_and_a_short_one_has_one() -> None:
    assert len(shingles_of("...")) == 0
    assert len(shingles_of("Yes.")) == 1
    assert signatures_of([]).shape == (0, NUMBERS)
