"""Every arm keeps the rows that its definition names: no Ray and no model, but real pieces."""

import math
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.config.quotas import rows_to_keep
from sf_ray.config.selection_options import SelectOptions
from sf_ray.config.value_types import By, Score
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Place, Unit, units_of
from sf_ray.scoring.score_set import ScoreSet, describe, score_set_of
from sf_ray.selection import corpus_pass
from sf_ray.selection.criterion import AtRandom
from sf_ray.selection.lengths import length_of, share_out
from sf_ray.selection.run import select_rows
from sf_ray.storage.location import Location
from tests.support.scored import selected_in_this_process, shards_of, write_pieces

UNIT_ROWS = 16
IDENTITY: dict[str, Any] = {
    "alignment": "reference",
    "max_length": 1024,
    "unit_rows": UNIT_ROWS,
    "format": "alpaca",
    "columns": {"instruction": "instruction", "output": "output"},
    "dtype": "float32",
}


@dataclass(frozen=True)
class ScoredRow:
    """A row as a definition sees it."""

    position: int
    shard: str
    row: int
    tokens: int
    ppl_direct: float
    ppl_conditioned: float
    ifd: float | None


def made(seed: int, sizes: Sequence[int]) -> list[ScoredRow]:
    rng = np.random.default_rng(seed)
    rows = []
    for shard, units in shards_of(*sizes, unit_rows=UNIT_ROWS):
        for row in range(units[-1].stop):
            ifd = round(float(np.exp(rng.normal(-0.2, 0.3))), 1) or 0.1  # many rows are equal
            direct = float(rng.choice([2.5, 4.0, 9.0]))
            rows.append(
                ScoredRow(
                    shard.position + row,
                    shard.file.relative,
                    row,
                    int(rng.choice([1, 2, 30, 31, 200])),
                    direct,
                    direct * ifd,
                    None if rng.random() < 0.05 else ifd,
                )
            )
    return rows


def put(rows: Sequence[ScoredRow], sizes: Sequence[int]) -> tuple[Corpus, ScoreSet]:
    place = Location(f"memory://{uuid.uuid4().hex}")
    score_set = score_set_of(place, IDENTITY)
    describe(score_set, "m")
    shards = tuple(shard for shard, _ in shards_of(*sizes, unit_rows=UNIT_ROWS))
    units = [(shard, units_of(shard.row_groups, UNIT_ROWS)) for shard in shards]
    values = [
        {"status": "bad_row"}
        if row.ifd is None
        else {
            "answer_tokens": row.tokens,
            "ppl_direct": row.ppl_direct,
            "ppl_conditioned": row.ppl_conditioned,
            "ifd": row.ifd,
        }
        for row in rows
    ]
    write_pieces(score_set.pieces, units, values)
    return Corpus(Location("memory://corpus"), shards, (pa.schema([]),)), score_set


def options_of(**given: Any) -> SelectOptions:
    return SelectOptions(input="/in", scores="/scores", output="/out", max_bad_fraction=1, **given)


def kept(options: SelectOptions, corpus: Corpus, score_set: ScoreSet) -> list[int]:
    """Positions of the kept rows."""
    selection = select_rows(options, corpus, score_set)
    return [
        position
        for chunk in selection.chunks()
        for position in chunk.positions[~np.isnan(selection.kept.read(chunk).ifd)].tolist()
    ]


def random_number(seed: int, row: ScoredRow) -> float:
    ((shard, _),) = shards_of(row.row + 1, unit_rows=1)
    place = Place(shard, Unit(row.row, row.row + 1))
    named = place._replace(shard=_named(shard, row.shard))
    return float(AtRandom(seed).values([named], pa.table({}))[0])


def _named(shard: Any, name: str) -> Any:
    from dataclasses import replace

    return replace(shard, file=replace(shard.file, relative=name))


@given(
    seed=st.integers(0, 2**32 - 1),
    by=st.sampled_from(["ifd", "ifd-low", "random", "longest"]),
    tokens=st.sampled_from([1, 100, 2000, 10**9]),
)
def test_the_best_rows_are_kept_until_they_have_the_tokens(seed: int, by: Any, tokens: int) -> None:
    rows, sizes = made(seed, (40, 30)), (40, 30)
    options = options_of(by=by, keep_tokens=tokens)
    left, expected = tokens, []
    for row in ranked(options, rows):
        if left > 0:
            expected.append(row.position)
            left -= row.tokens
    assert kept(options, *put(rows, sizes)) == sorted(expected)


def score(options: SelectOptions, row: ScoredRow) -> float:
    assert row.ifd is not None
    return {
        "ifd": row.ifd,
        "loss-delta": math.log(row.ifd),
        "ppl-direct": row.ppl_direct,
        "ppl-conditioned": row.ppl_conditioned,
        "answer-tokens": row.tokens,
    }[options.rank_by]


def ranked(options: SelectOptions, rows: Sequence[ScoredRow]) -> list[ScoredRow]:
    """The rows that may be kept, the best first, of an arm that looks at no length."""
    value = {
        "ifd": lambda row: -score(options, row),
        "ifd-low": lambda row: score(options, row),
        "random": lambda row: -random_number(options.seed, row),
        "longest": lambda row: -row.tokens,
    }[options.by]
    within = [
        row
        for row in rows
        if row.ifd is not None
        and options.min_ifd <= row.ifd < options.kept_below
        and row.tokens >= (options.min_answer_tokens or 0)
    ]
    return sorted(within, key=lambda row: (value(row), row.position))


def defined(options: SelectOptions, rows: Sequence[ScoredRow]) -> list[int]:
    """Positions of the rows that the definition of the arm names."""
    wanted = rows_to_keep(len(rows), options.keep_fraction or 0)

    def within(below: float) -> list[ScoredRow]:
        return [
            row
            for row in rows
            if row.ifd is not None
            and options.min_ifd <= row.ifd < below
            and row.tokens >= (options.min_answer_tokens or 0)
        ]

    def best(pool: Sequence[ScoredRow], count: int) -> list[ScoredRow]:
        return sorted(pool, key=lambda row: (-score(options, row), row.position))[:count]

    def drawn(pool: Sequence[ScoredRow], count: int) -> list[ScoredRow]:
        return sorted(pool, key=lambda row: -random_number(options.seed, row))[:count]

    def of_lengths(pool: Sequence[ScoredRow]) -> dict[int, list[ScoredRow]]:
        lengths: dict[int, list[ScoredRow]] = defaultdict(list)
        for row in pool:
            lengths[int(length_of(np.array([row.tokens]))[0])].append(row)
        return lengths

    one = options.best_below
    if not options.by.startswith("length-"):
        found = ranked(options, rows)[:wanted]
    elif options.by == "length-matched":
        pool = of_lengths(within(math.inf))
        found = [
            row
            for length, of_length in of_lengths(best(within(one), wanted)).items()
            for row in drawn(pool[length], len(of_length))
        ]
    else:
        pool = of_lengths(within(one))
        total = sum(map(len, pool.values()))
        shares = {
            length: Fraction(min(wanted, total) * len(of_length), total)
            for length, of_length in pool.items()
        }
        counts = {length: math.floor(share) for length, share in shares.items()}
        left = min(wanted, total) - sum(counts.values())
        for length in sorted(shares, key=lambda it: (counts[it] - shares[it], it))[:left]:
            counts[length] += 1
        found = [row for length in pool for row in best(pool[length], counts[length])]
    return sorted(row.position for row in found)


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    with selected_in_this_process():
        yield


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    by=st.sampled_from(get_args(By)),
    rank_by=st.sampled_from(sorted({*get_args(Score)} - {"s-ifd"})),  # test_selective_ifd has that
    keep=st.sampled_from([0.05, 0.1, 0.3, 1.0]),
    more=st.sampled_from([{}, {"min_ifd": 0.6}, {"min_answer_tokens": 30}]),
    draw=st.sampled_from([0, 7]),
)
def test_an_arm_keeps_the_rows_that_its_definition_names(
    seed: int,
    sizes: list[int],
    by: Any,
    rank_by: Any,
    keep: float,
    more: dict[str, Any],
    draw: int,
) -> None:
    if by in ("random", "longest"):
        rank_by = "ifd"
    rows = made(seed, sizes)
    options = options_of(by=by, rank_by=rank_by, keep_fraction=keep, seed=draw, **more)
    if all(row.ifd is None for row in rows):
        return  # refused: see the tests of bad rows
    assert kept(options, *put(rows, sizes)) == defined(options, rows)


def test_the_random_order_depends_on_seed_shard_and_row_alone() -> None:
    (shard, _), (other, _) = shards_of(1000, 1000, unit_rows=1000)
    whole = AtRandom(3).values([Place(shard, Unit(0, 1000))], pa.table({}))
    parts = [Place(shard, Unit(start, start + 100)) for start in range(0, 1000, 100)]
    np.testing.assert_array_equal(AtRandom(3).values(parts, pa.table({})), whole)
    for another in (
        AtRandom(4).values([Place(shard, Unit(0, 1000))], pa.table({})),
        AtRandom(3).values([Place(other, Unit(0, 1000))], pa.table({})),
    ):
        assert abs(np.corrcoef(whole, another)[0, 1]) < 0.15
    # Spread evenly: the largest distance of 1,000 even numbers from the diagonal, at 1 in 10^5.
    assert np.abs(np.sort(whole) - np.arange(1000) / 1000).max() < 2.5 / math.sqrt(1000)
    assert whole.min() >= 0
    assert whole.max() < 1


@pytest.mark.parametrize("by", ["random", "length-matched"])
def test_random_rows_are_the_same_however_many_tasks_count_them(
    by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (100, 60)
    rows = made(5, sizes)
    options = options_of(by=by, keep_fraction=0.2, seed=3)
    corpus, score_set = put(rows, sizes)
    units = score_set.units(corpus)
    for tasks in (1, 2, 4):
        monkeypatch.setattr(corpus_pass, "UNITS_A_TASK", -(-11 // tasks))
        assert len(corpus_pass.chunks_of(units)) == tasks
        assert kept(options, corpus, score_set) == defined(options, rows)


@pytest.mark.parametrize("keep", [10, 40, 90])
def test_a_new_shard_leaves_the_random_order_of_the_others_as_it_was(keep: int) -> None:
    sizes = (60, 40, 50)
    rows = made(8, sizes)
    with_new = kept(options_of(by="random", keep_count=keep), *put(rows, sizes))
    old = [position for position in with_new if position < 100]
    assert 0 < len(old) < keep
    # So many old rows are kept as have places before the last; these are the first of them.
    again = options_of(by="random", keep_count=len(old))
    assert kept(again, *put(rows[:100], sizes[:2])) == old


def test_matched_rows_have_the_lengths_of_the_best_ones_and_random_rows_do_not() -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    sizes = (3000, 2000)
    tokens = rng.lognormal(4, 1, 5000).astype(int) + 1
    # Long answers have a high IFD, as in Alpaca.
    ifd = np.clip(0.2 + 0.08 * np.log(tokens) + rng.normal(0, 0.05, 5000), 0.01, 0.99)
    rows = [
        ScoredRow(it, "", 0, int(tokens[it]), 2.0, 2.0 * ifd[it], float(ifd[it]))
        for it in range(5000)
    ]
    corpus, score_set = put(rows, sizes)
    by = {
        arm: tokens[kept(options_of(by=arm, keep_fraction=0.1), corpus, score_set)]
        for arm in ("ifd", "random", "length-matched")
    }
    assert len(by["ifd"]) == len(by["random"]) == len(by["length-matched"]) == 500
    assert ks_2samp(by["ifd"], by["length-matched"]).pvalue > 0.5
    assert ks_2samp(by["ifd"], by["random"]).pvalue < 1e-9


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 500))
def test_what_is_shared_out_is_all_there_and_in_proportion(rows: list[int], wanted: int) -> None:
    counts = np.array(rows)
    shared = share_out(wanted, counts)
    assert shared.sum() == min(wanted, counts.sum())
    assert (shared <= counts).all()
    if counts.sum():
        exact = min(wanted, counts.sum()) * counts / counts.sum()
        assert (np.abs(shared - exact) < 1).all()
