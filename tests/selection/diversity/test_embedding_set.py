"""Embeddings as sidecars. No Ray, no model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.units import Shard, Unit
from sf_ray.errors import SfRayError
from sf_ray.selection.chunks import PlacedRows
from sf_ray.selection.diversity.embedding_set import (
    Embedded,
    EmbeddingSet,
    embedded_of,
    embedding_set_of,
    table_of,
)
from sf_ray.storage.listing import File, list_files
from sf_ray.storage.location import Location

rows = st.sets(st.integers(0, 30), max_size=20).map(lambda found: np.array(sorted(found), np.int64))


def embedded(numbers: np.ndarray, add: int = 0) -> Embedded:
    """Rows whose embedding tells their number."""
    return Embedded(numbers, (numbers[:, None] + [[add, 0.5]]).astype(np.float16))


@given(rows, rows)
def test_rows_of_two_pieces_are_the_rows_of_both(one: np.ndarray, two: np.ndarray) -> None:
    both = embedded(one).with_others(embedded(two, add=1))
    assert both.numbers.tolist() == sorted({*one.tolist(), *two.tolist()})
    ours = np.isin(both.numbers, one)
    np.testing.assert_array_equal(both.embeddings[:, 0], both.numbers + ~ours)
    np.testing.assert_array_equal(both.embeddings[:, 1], both.numbers + 0.5)
    assert len(both.lacks(one)) == 0
    assert embedded(one).lacks(two).tolist() == sorted({*two.tolist()} - {*one.tolist()})
    np.testing.assert_array_equal(both.of(two)[:, 1], two + 0.5)


@given(rows)
def test_embeddings_travel_as_tables(one: np.ndarray) -> None:
    back = embedded_of(table_of(embedded(one)))
    np.testing.assert_array_equal(back.numbers, one)
    np.testing.assert_array_equal(back.embeddings, embedded(one).embeddings)
    assert back.embeddings.dtype == np.float16


def test_pieces_grow_and_are_no_files_of_scores(place: Location) -> None:
    alpaca = resolve_format(["instruction", "output"])
    target = embedding_set_of(place, "abc", alpaca)
    assert target.read("a/one.parquet") is None
    target.add("a/one.parquet", embedded(np.array([3, 5])))
    target.add("a/one.parquet", embedded(np.array([1, 5]), add=1))
    found = target.read("a/one.parquet")
    assert found is not None
    assert found.numbers.tolist() == [1, 3, 5]
    assert found.embeddings[:, 0].tolist() == [2, 3, 5]
    target.describe("minilm")
    assert list_files(place) == []
    assert target != embedding_set_of(place, "other", alpaca)
    assert target != embedding_set_of(place, "abc", resolve_format(["question", "answer"]))


def test_lost_rows_are_an_error_and_not_zeros(place: Location) -> None:
    shard, unit = Shard(File("a.parquet", "a.parquet", 9, "1"), (10,), 0), Unit(0, 10)
    target = EmbeddingSet(place, {})
    target.add(shard.piece(unit), embedded(np.array([1, 2])))
    (found,) = target.read_rows([PlacedRows((shard, unit), np.array([2]))])
    assert found[:, 1].tolist() == [2.5]
    with pytest.raises(SfRayError, match="lack rows"):
        list(target.read_rows([PlacedRows((shard, unit), np.array([2, 3]))]))
