"""S-IFD against its definition: no Ray and no model, but real pieces and sidecars."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sf_ray.config.selection_options import SelectOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import ScoreSet, token_losses_of
from sf_ray.scoring.token_losses import DIFFERENCES, SIDECAR_ENCODING, SIDECAR_SCHEMA
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.run import select_rows
from sf_ray.selection.score_range import ScoreRange
from sf_ray.selection.selective_ifd import (
    count_tokens,
    find_threshold,
    selective_ifd,
    tokens_in,
)
from sf_ray.selection.selective_ifd_tasks import select_tokens
from sf_ray.storage.files import put_table
from tests.selection.test_arms import UNIT_ROWS, ScoredRow, kept, made, options_of, put
from tests.support.scored import InThisProcess, selected_in_this_process

Tokens = list[NDArray[np.float32] | None]  # of each row
SIZES = (40, 30)
# Ties, zeros, and amounts that differ in the last bit only.
AMOUNTS = np.float32([0, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 1e-6, 2, 30])


def tokens_of(seed: int, rows: int) -> Tokens:
    rng = np.random.default_rng(seed)
    found: Tokens = []
    for _ in range(rows):
        count = int(rng.integers(0, 6))
        amounts = np.where(
            rng.random(count) < 0.5, rng.choice(AMOUNTS, count), rng.exponential(0.3, count)
        )
        nats = (amounts * rng.choice([-1, 1], count)).astype(np.float32)
        found.append(nats if count else None)
    return found


def threshold_of(tokens: Tokens, share: float) -> float:
    """By the definition: all tokens in one sorted array."""
    largest_first = np.sort(np.abs(np.concatenate([row for row in tokens if row is not None])))
    count = max(1, math.floor(Fraction(str(share)) * len(largest_first)))
    return float(largest_first[::-1][count - 1])


def naive(tokens: Tokens, threshold: float) -> list[float]:
    values = []
    for row in tokens:
        counted = [] if row is None else [d for d in row.tolist() if abs(d) >= threshold]
        values.append(math.exp(-sum(counted) / len(counted)) if counted else math.nan)
    return values


def put_tokens(score_set: ScoreSet, corpus: Corpus, tokens: Tokens) -> None:
    for shard, units in score_set.units(corpus):
        for unit in units:
            first = shard.position + unit.start
            nats = [None if t is None else t.tolist() for t in tokens[first : first + unit.rows]]
            columns = {"row": np.arange(unit.start, unit.stop), DIFFERENCES: nats}
            where = token_losses_of(score_set.pieces).join(shard.piece(unit))
            put_table(where, pa.table(columns, schema=SIDECAR_SCHEMA), SIDECAR_ENCODING)


def written(rows: list[ScoredRow], tokens: Tokens) -> tuple[Corpus, ScoreSet]:
    corpus, score_set = put(rows, SIZES)
    put_tokens(score_set, corpus, tokens)
    return corpus, score_set


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    with selected_in_this_process():
        yield


shares = st.sampled_from([0.001, 0.1, 0.5, 0.75, 1.0])


@given(seed=st.integers(0, 2**32 - 1), share=shares, few=st.sampled_from([0, 1, 3, 1000]))
def test_the_threshold_is_the_quantile_of_all_tokens(seed: int, share: float, few: int) -> None:
    tokens = tokens_of(seed, 60)
    nats = np.concatenate([row for row in tokens if row is not None])
    passes = []

    def count(token_range: ScoreRange) -> NDArray[np.int64]:
        passes.append(token_range)
        return sum(count_tokens(token_range, part) for part in np.array_split(nats, 3))

    def gather(token_range: ScoreRange) -> NDArray[np.float32]:
        found = tokens_in(token_range, nats)
        assert len(found) <= few
        return found

    selected = find_threshold(share, count, gather, few)
    assert selected is not None
    assert selected.tokens == len(nats)
    assert selected.threshold_nats == threshold_of(tokens, share)
    assert len(passes) <= 4


@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.0, 1e-6, 0.5, 2.0, 40.0]))
def test_s_ifd_equals_its_definition(seed: int, threshold: float) -> None:
    tokens = tokens_of(seed, 50)
    counts = np.array([0 if row is None else len(row) for row in tokens])
    nats = np.concatenate([np.empty(0, np.float32), *(row for row in tokens if row is not None)])
    found = selective_ifd(counts, nats, threshold)
    np.testing.assert_allclose(found, naive(tokens, threshold), rtol=1e-12, equal_nan=True)


@given(
    seed=st.integers(0, 2**32 - 1),
    by=st.sampled_from(["ifd", "ifd-low"]),
    share=shares,
    keep=st.sampled_from([0.05, 0.3, 1.0]),
    more=st.sampled_from([{}, {"min_ifd": 0.6}, {"max_ifd": 1.3, "min_answer_tokens": 30}]),
)
def test_the_rows_of_the_best_s_ifd_are_kept(
    seed: int, by: Any, share: float, keep: float, more: dict[str, Any]
) -> None:
    rows = made(seed, SIZES)
    tokens = tokens_of(seed, len(rows))
    for number, row in enumerate(rows):
        if row.ifd is None:
            tokens[number] = None
    options = options_of(by=by, rank_by="s-ifd", token_share=share, keep_fraction=keep, **more)
    threshold = threshold_of(tokens, share)
    values = naive(tokens, threshold)
    sign = -1 if by == "ifd" else 1
    within = [
        row
        for row in rows
        if row.ifd is not None
        and options.min_ifd <= row.ifd < options.kept_below
        and row.tokens >= (options.min_answer_tokens or 0)
    ]
    best = sorted(
        (row for row in within if not math.isnan(values[row.position])),
        key=lambda row: (sign * values[row.position], row.position),
    )
    expected = [row.position for row in best[: math.floor(Fraction(str(keep)) * len(rows))]]
    corpus, score_set = written(rows, tokens)
    selection = select_rows(options, corpus, score_set)
    assert selection.tokens is not None
    assert selection.tokens.threshold_nats == threshold
    assert selection.ranking.valueless == len(within) - len(best)
    assert kept(options, corpus, score_set) == sorted(expected)


@pytest.mark.parametrize("by", ["length-normalised", "length-matched"])
def test_arms_by_length_rank_by_s_ifd(by: Any) -> None:
    rows = made(5, SIZES)
    tokens = tokens_of(5, len(rows))
    corpus, score_set = written(rows, tokens)
    options = options_of(by=by, rank_by="s-ifd", keep_fraction=0.2)
    found = kept(options, corpus, score_set)
    assert len(found) == 14
    if by == "length-normalised":
        values = naive(tokens, threshold_of(tokens, 0.75))
        assert not any(math.isnan(values[position]) for position in found)


@given(seed=st.integers(0, 2**32 - 1), units_a_task=st.integers(1, 5), share=shares)
def test_how_the_corpus_is_cut_into_tasks_does_not_change_the_threshold(
    seed: int, units_a_task: int, share: float
) -> None:
    rows = made(seed, SIZES)
    tokens = tokens_of(seed, len(rows))
    corpus, score_set = written(rows, tokens)
    chunks = chunks_of(score_set.units(corpus), units_a_task=units_a_task)
    assert len(chunks) == -(-(3 + 2) // units_a_task), UNIT_ROWS
    in_process = cast(CorpusPass, InThisProcess(score_set.pieces))
    selected = select_tokens(in_process, chunks, score_set.pieces, share)
    assert selected.threshold_nats == threshold_of(tokens, share)


def test_a_corpus_without_a_token_is_refused() -> None:
    rows = made(1, SIZES)
    corpus, score_set = written(rows, [None] * len(rows))
    options: SelectOptions = options_of(rank_by="s-ifd", keep_count=3)
    with pytest.raises(SfRayError, match="no row has a token that both passes score"):
        select_rows(options, corpus, score_set)
