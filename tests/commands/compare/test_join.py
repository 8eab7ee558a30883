import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from sf_ray.commands.compare.consistency import sampled
from sf_ray.commands.compare.join import compare_sets
from sf_ray.config.quotas import rows_to_keep
from sf_ray.corpus.units import Unit
from sf_ray.errors import SfRayError
from sf_ray.storage.files import put_bytes, put_table
from tests.support.score_sets import (
    ENCODING,
    Row,
    random_rows,
    shard_of,
    somewhere,
    table_of,
    two_sets,
    write_set,
)

OTHERS = ("empty_answer", "bad_row")
values = st.sampled_from([0.5, 1.0, 2.0, 3.0, 3.5, 4.0, 7.0])
a_row = st.tuples(st.sampled_from(["ok", "ok", "ok", *OTHERS]), values, values)
NAMES = ("a/b.parquet", "a.parquet", "a-b.parquet", "c.jsonl")


@st.composite
def cuts(draw: st.DrawFn, rows: int) -> list[Unit]:
    """Units of a shard, cut anywhere, of which some have no scores."""
    inner = draw(st.sets(st.integers(1, rows - 1))) if rows > 1 else set()
    edges = [0, *sorted(inner), rows]
    units = [Unit(start, stop) for start, stop in itertools.pairwise(edges)]
    return [unit for unit in units if draw(st.integers(0, 4))]


@settings(max_examples=60)
@given(st.data(), st.sampled_from([0.1, 0.5]), st.sampled_from([1.0, 0.7]))
def test_a_comparison_is_that_of_joining_by_hand(
    data: st.DataObject, fraction: float, max_ifd: float
) -> None:
    sides = []
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    counts = {name: data.draw(st.integers(1, 12)) for name in names}
    place = somewhere()
    for model in "ab":
        rows = {
            name: data.draw(st.lists(a_row, min_size=count, max_size=count))
            for name, count in counts.items()
        }
        units = {name: data.draw(cuts(count)) for name, count in counts.items()}
        score_set = write_set(place, rows, units, model=model)
        sides.append((score_set, {
            (name, row): rows[name][row]
            for name, of_shard in units.items()
            for unit in of_shard
            for row in range(unit.start, unit.stop)
        }))  # fmt: skip
    (set_a, rows_a), (set_b, rows_b) = sides
    common = sorted(rows_a.keys() & rows_b.keys())
    if not common:
        with pytest.raises(SfRayError, match=r"no common rows|no score pieces"):
            compare_sets(set_a, set_b, [fraction], max_ifd)
        return
    found = compare_sets(set_a, set_b, [fraction], max_ifd)

    assert found.rows == found.ranked == len(common)
    assert (found.a.rows, found.b.rows) == (len(rows_a), len(rows_b))
    differing = Counter(
        (rows_a[p][0], rows_b[p][0]) for p in common if rows_a[p][0] != rows_b[p][0]
    )
    assert found.statuses == differing
    ok = [p for p in common if rows_a[p][0] == rows_b[p][0] == "ok"]
    assert found.consistency.rows == found.agreement.rows == len(ok)
    for column in ("ppl_direct", "ppl_conditioned", "ifd"):
        a, b = ([_value(of[p], column) for p in ok] for of in (rows_a, rows_b))
        rho = getattr(found.consistency, column)
        if len(set(a)) < 2 or len(set(b)) < 2:
            assert np.isnan(rho)
        else:
            assert rho == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)
    (overlap,) = found.consistency.overlaps
    assert overlap.wanted == rows_to_keep(len(common), fraction)
    kept = [_best(of, common, overlap.wanted, max_ifd) for of in (rows_a, rows_b)]
    assert (overlap.kept_a, overlap.kept_b) == (len(kept[0]), len(kept[1]))
    assert overlap.both == len(kept[0] & kept[1])
    assert found.agreement.only_a == sum(
        _value(rows_a[p], "ifd") >= 1 > _value(rows_b[p], "ifd") for p in ok
    )


def _value(row: Row, column: str) -> float:
    _, direct, conditioned = row
    every = {"ppl_direct": direct, "ppl_conditioned": conditioned, "ifd": conditioned / direct}
    return every[column]


def _best(
    rows: Mapping[tuple[str, int], Row],
    common: Sequence[tuple[str, int]],
    wanted: int,
    max_ifd: float,
) -> set[tuple[str, int]]:
    good = [p for p in common if rows[p][0] == "ok" and _value(rows[p], "ifd") < max_ifd]
    return set(sorted(good, key=lambda p: (-_value(rows[p], "ifd"), p))[:wanted])


def test_of_more_rows_than_are_ranked_a_sample_is_and_counts_stay_whole() -> None:
    a, b = two_sets(400)
    full = compare_sets(a, b, [0.1], 1.0)
    found = compare_sets(a, b, [0.1], 1.0, most_rows=100)
    chosen = sampled("x.parquet", np.arange(400), 0.25)
    assert found.is_sample
    assert not full.is_sample
    assert found.ranked == chosen.sum() == len(found.ifd_a)
    assert np.array_equal(found.ifd_a, full.ifd_a[chosen])
    assert found.agreement == full.agreement
    assert found.rows == 400


def test_what_decided_the_scores_differently_is_noted() -> None:
    a, b = two_sets(alignment="aligned", max_length=64)
    notes = compare_sets(a, b, [0.1], 1.0).notes
    assert "alignment differs: reference and aligned" in notes
    assert "max_length differs: 128 and 64" in notes
    assert not [note for note in notes if note.startswith("model")]
    assert "both sides are the same scores" in compare_sets(a, a, [0.1], 1.0).notes


def test_broken_pieces_are_named() -> None:
    a, b = two_sets()
    shard = shard_of("x.parquet", 40)
    extra = b.pieces.join(shard.piece(Unit(2, 6)))
    put_table(extra, table_of(random_rows(40, 0), Unit(2, 6)), ENCODING)
    with pytest.raises(SfRayError, match="hold the same rows; delete both"):
        compare_sets(a, b, [0.1], 1.0)
    extra.call("rm_file", extra.path)
    piece = b.pieces.join(shard.piece(Unit(4, 8)))
    put_table(piece, table_of(random_rows(40, 0), Unit(0, 4)), ENCODING)
    with pytest.raises(SfRayError, match="does not hold the rows that its name says"):
        compare_sets(a, b, [0.1], 1.0)
    put_bytes(piece, b"PAR1 no more")
    with pytest.raises(SfRayError, match="cannot be read"):
        compare_sets(a, b, [0.1], 1.0)
