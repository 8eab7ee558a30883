import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.exact.bands import (
    LENGTHS,
    SAFETY_FACTOR,
    Bands,
    LengthErrors,
    bands_of,
    draw,
    length_of,
    nearness,
)

TOKENS = np.array([1, 8, 9, 32, 33, 128, 129, 5000])


def test_answers_have_four_lengths() -> None:
    assert length_of(TOKENS).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert LENGTHS == 4


@given(seed=st.integers(0, 1000), cut=st.integers(0, 500), wanted=st.integers(1, 200))
def test_the_same_rows_are_drawn_however_the_corpus_is_cut(
    seed: int, cut: int, wanted: int
) -> None:
    rng = np.random.default_rng(seed)
    positions, tokens, is_ok = np.arange(500), rng.choice(TOKENS, 500), rng.random(500) < 0.9
    whole = draw(positions, tokens, is_ok, wanted)
    parts = [
        draw(positions[part], tokens[part], is_ok[part], wanted)
        for part in (slice(cut, None), slice(0, cut))
    ]
    joined = [a.joined(b, wanted) for a, b in zip(*parts, strict=True)]
    for number, (one, other) in enumerate(zip(whole, joined, strict=True)):
        assert one.positions.tolist() == other.positions.tolist()
        assert is_ok[one.positions].all()
        of_length = is_ok & (length_of(tokens) == number)
        assert len(one.positions) == min(wanted, of_length.sum())
        assert of_length[one.positions].all()


def test_the_drawn_rows_are_spread_over_the_corpus() -> None:
    positions = np.arange(100_000)
    (drawn, *_) = draw(positions, np.full(len(positions), 5), np.ones(len(positions), bool), 1000)
    tenths = np.bincount(drawn.positions // 10_000, minlength=10)
    assert tenths.min() > 60
    assert tenths.max() < 140


def test_the_band_of_a_length_is_twice_the_largest_error_seen_in_its_sample() -> None:
    exact = np.array([0.5, 0.8, 0.7, 0.9, 0.4])
    errors = np.array([0.02, -0.04, 0.01, 0.001, -0.002])
    tokens = np.array([5, 6, 7, 100, 1000])
    bands = bands_of(exact * np.exp(errors), exact, tokens)
    short, middle, long, longest = bands.lengths
    assert middle is None
    assert short == LengthErrors(8, 3, pytest.approx(0.02), pytest.approx(0.04))
    assert long == LengthErrors(128, 1, pytest.approx(0.001), pytest.approx(0.001))
    assert longest is not None
    assert longest.most_answer_tokens is None
    assert SAFETY_FACTOR == 2
    np.testing.assert_allclose(bands.of(np.array([1, 40, 999])), [0.08, 0.002, 0.004])


def test_a_row_without_a_score_in_one_type_tells_nothing() -> None:
    bands = bands_of(np.array([0.5, 0.6]), np.array([0.5, np.nan]), np.array([5, 5]))
    assert bands.lengths[0] == LengthErrors(8, 1, 0.0, 0.0)
    # Nothing was seen of other lengths, so any row of them may be off by anything.
    assert bands.of(np.array([20])) == [np.inf]


def test_a_row_is_near_a_line_where_its_band_reaches_it() -> None:
    ifd = np.array([0.5, 0.5 * np.exp(0.1), 0.5 * np.exp(-0.2), 1.0, np.nan])
    bands = np.full(5, 0.1)
    near = nearness(ifd, bands, [0.5])
    np.testing.assert_allclose(near[:4], [0, 1, 2, np.log(2) / 0.1])
    assert near[4] == np.inf
    # Each row may have a line of its own, or none; the nearest line counts.
    own = np.array([np.nan, 0.5, np.nan, 1.0, 1.0])
    np.testing.assert_allclose(
        nearness(ifd, bands, [0.0, 1.05, own])[[0, 1, 3]],
        [np.log(2.1) / 0.1, 1, 0],
    )


def test_a_band_without_width_reaches_the_line_itself_and_one_without_end_any_line() -> None:
    ifd = np.array([0.5, 0.51])
    assert nearness(ifd, np.zeros(2), [0.5]).tolist() == [0, np.inf]
    assert nearness(ifd, np.full(2, np.inf), [0.9]).tolist() == [0, 0]
    assert nearness(ifd, np.full(2, np.inf), [0.0, np.nan]).tolist() == [np.inf, np.inf]


def test_bands_of_no_sample_have_no_end() -> None:
    assert Bands((None,) * LENGTHS).of(TOKENS).tolist() == [np.inf] * len(TOKENS)
