"""What a pass does with a shard that turns out to be bad; tasks run in this process."""

from pathlib import Path

import pytest
import ray

from sf_ray.errors import BadShardError
from sf_ray.runtime.tasks import StoredResult
from sf_ray.scoring.score_set import bad_shards
from sf_ray.selection import corpus_pass
from sf_ray.selection.chunks import Chunk
from sf_ray.selection.corpus_pass import CorpusPass, MarkedBadError, chunks_of
from sf_ray.storage.location import Location
from tests.support.scored import shards_of

UNITS = shards_of(2, 2, 2, unit_rows=1)


@pytest.fixture(autouse=True)
def tasks_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def parallel_map(function, items, stall_s):
        return map(function, items)

    def parallel_map_stored(function, items, stall_s, stored):
        for value, values in map(function, items):
            assert len(values) == stored
            yield StoredResult(value, tuple(values))

    monkeypatch.setattr(corpus_pass, "parallel_map", parallel_map)
    monkeypatch.setattr(corpus_pass, "parallel_map_stored", parallel_map_stored)


def count(chunk: Chunk) -> int:
    for shard, _ in chunk.places:
        if shard.file.relative == "b.parquet":
            raise BadShardError("b.parquet", "has holes")
    return chunk.start


def test_few_units_are_gone_over_here_and_many_in_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_tasks(*_):
        raise AssertionError("a task")

    monkeypatch.setattr(corpus_pass, "parallel_map", no_tasks)
    monkeypatch.setattr(corpus_pass, "parallel_map_stored", no_tasks)
    monkeypatch.setattr(ray, "put", lambda value: f"stored {value}")
    in_tasks = CorpusPass(Location("memory://x"), False, 1.0)
    few = in_tasks.for_scores(UNITS)
    chunks = chunks_of(UNITS, units_a_task=2)
    starts = lambda chunk: chunk.start  # noqa: E731
    assert list(few.over(starts, chunks)) == [0, 2, 4]
    stored = few.over_stored(lambda chunk: (chunk.start, ["one"]), chunks, 1)
    assert list(stored) == [StoredResult(start, ("stored one",)) for start in (0, 2, 4)]
    many = in_tasks.for_scores(shards_of(513, unit_rows=1))
    with pytest.raises(AssertionError, match="a task"):
        list(many.over(starts, chunks))


def test_a_shard_that_turns_out_to_be_bad_here_is_marked_as_in_a_task(tmp_path: Path) -> None:
    pieces = Location(str(tmp_path))
    few = CorpusPass(pieces, True, 1.0).for_scores(UNITS)
    with pytest.raises(MarkedBadError):
        list(few.over(count, chunks_of(UNITS, units_a_task=2)))
    assert bad_shards(pieces) == {UNITS[1][0].shard_id: "has holes"}


def split(chunk: Chunk) -> tuple[int, list[str]]:
    return count(chunk), ["one", "two"]


def test_all_chunks_are_gone_over_before_a_marked_shard_ends_the_pass(tmp_path: Path) -> None:
    pieces = Location(str(tmp_path))
    results = CorpusPass(pieces, True, 1.0).over(count, chunks_of(UNITS, units_a_task=2))
    seen = []
    with pytest.raises(MarkedBadError):
        for start in results:
            seen.append(start)
    assert seen == [0, 4]  # a position of 0 is a result, too
    assert bad_shards(pieces) == {UNITS[1][0].shard_id: "has holes"}


def test_values_that_stay_in_the_object_store_are_missing_for_a_marked_shard(
    tmp_path: Path,
) -> None:
    pieces = Location(str(tmp_path))
    results = CorpusPass(pieces, True, 1.0).over_stored(split, chunks_of(UNITS, units_a_task=2), 2)
    seen = []
    with pytest.raises(MarkedBadError):
        for result in results:
            seen.append(result)
    assert seen == [StoredResult(0, ("one", "two")), StoredResult(4, ("one", "two"))]
    assert bad_shards(pieces) == {UNITS[1][0].shard_id: "has holes"}


def test_a_bad_shard_is_an_error_and_no_mark_where_none_is_to_be_skipped(tmp_path: Path) -> None:
    pieces = Location(str(tmp_path))
    with pytest.raises(BadShardError, match="has holes"):
        list(CorpusPass(pieces, False, 1.0).over(count, chunks_of(UNITS)))
    assert bad_shards(pieces) == {}
