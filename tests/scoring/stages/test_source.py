import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from ray.exceptions import RayActorError

from bench.support.corpora import make_rows, write_shards
from sf_ray.corpus.bundles import UnitRows
from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.corpus.rows import BadLine, rows_of
from sf_ray.corpus.units import group_reads, share_reads, units_of
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.errors import BadRowError, BadShardError
from sf_ray.scoring.partial_sets import RowSet
from sf_ray.scoring.score_set import bad_shards
from sf_ray.scoring.stages.failures import Failures
from sf_ray.scoring.stages.source import Notes, ScoringJob, _encoded_units, _notes_on
from sf_ray.storage.location import Location

UNIT_ROWS = 8


class Statuses:
    """Encodes a row as its status."""

    columns = ("id",)

    def encode(self, rows: pa.Table, shard: str, start: int) -> pa.Table:
        are_bad = [isinstance(row, BadLine) or "output" not in row for row in rows_of(rows)]
        return pa.table({"status": ["bad_row" if bad else "ok" for bad in are_bad]})


class Ids:
    """Encodes a row as its id."""

    columns = ("id",)

    def encode(self, rows: pa.Table, shard: str, start: int) -> pa.Table:
        return rows.append_column("status", [["ok"] * rows.num_rows])


def encoded_units(
    corpus: Corpus,
    encoding: object,
    skip_bad: bool = False,
    skip_bad_lines: bool = False,
    rows: RowSet | None = None,
    notes: Notes | None = None,
) -> list[UnitRows]:
    """The units of one task that reads the whole corpus, or the units with some rows."""
    plans = [
        plan
        for shard in corpus.shards
        for plan in group_reads(shard, units_of(shard.row_groups, UNIT_ROWS))
    ]
    marks = Location(f"{corpus.location.uri}-scores")
    tasks = share_reads(plans, 999)
    job = ScoringJob(corpus.location, marks, tasks, 9, skip_bad, skip_bad_lines, rows)
    (task,) = job.tasks
    return list(_encoded_units(job.of(task), task, cast(EncodingSpec, encoding), notes))


def ids(units: Sequence[UnitRows]) -> list[str]:
    return [name for unit in units for name in unit.rows["id"].to_pylist()]


def test_a_task_reads_its_units_in_order(tmp_path: Path) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(60)))))
    units = encoded_units(corpus, Ids())
    assert ids(units) == [f"row-{number}" for number in range(60)]
    assert [unit.start for unit in units] == [0, 8, 16] * 3
    assert all(unit.piece.startswith(unit.shard.removesuffix(".parquet")) for unit in units)


def test_only_the_wanted_rows_of_a_unit_are_encoded_each_with_its_number(tmp_path: Path) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(60)))))
    shard = corpus.shards[1]
    flags = {
        shard.piece(unit): np.isin(np.arange(unit.start, unit.stop), [3, 4, 9])
        for unit in units_of(shard.row_groups, UNIT_ROWS)
    }
    units = encoded_units(corpus, Ids(), rows=RowSet.of_flags(flags))
    wanted = [unit for unit in units if unit.rows.num_rows]
    assert ids(wanted) == ["row-23", "row-24", "row-29"]
    assert [unit.rows["row"].to_pylist() for unit in wanted] == [[3, 4], [9]]
    assert [unit.start for unit in wanted] == [0, 8]


def test_a_bad_shard_fails_the_task_or_is_marked_and_passed_over(tmp_path: Path) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(60)))))
    bad = corpus.shards[1]
    (tmp_path / "corpus" / bad.file.relative).unlink()
    marks = Location(str(tmp_path / "corpus-scores"))
    with pytest.raises(BadShardError, match=bad.file.relative):
        encoded_units(corpus, Ids())
    assert bad_shards(marks) == {}
    units = encoded_units(corpus, Ids(), skip_bad=True)
    assert ids(units) == [f"row-{number}" for number in range(60) if not 20 <= number < 40]
    assert bad_shards(marks) == {bad.shard_id: "disappeared while the job ran"}


def test_a_line_that_is_no_object_fails_the_task_or_is_a_bad_row(tmp_path: Path) -> None:
    lines = [json.dumps({"output": "b"})] * 5
    text = "\n".join([*lines, json.dumps({"input": "a"}), "{no", *lines])
    (tmp_path / "x.jsonl").write_text(text, encoding="utf-8")
    corpus = plan_corpus(Location(str(tmp_path)))
    with pytest.raises(BadRowError, match="line 7"):  # line 6 is an object, if a useless one
        encoded_units(corpus, Statuses())
    units = encoded_units(corpus, Statuses(), skip_bad_lines=True)
    statuses = [status for unit in units for status in unit.rows["status"].to_pylist()]
    assert statuses == ["ok"] * 5 + ["bad_row"] * 2 + ["ok"] * 5


class Deaths:
    """What the tally answers a task, as the processes before it left it."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.called: list[str] = []

    def __call__(self, method: str, piece: str) -> bool:
        self.called.append(method)
        return bool(getattr(self.failures, method)(piece))


def test_what_readers_die_of_is_a_bad_shard(tmp_path: Path) -> None:
    class Died(BaseException):
        """Stands for the end of the process: nothing in it is run any more."""

    class Deadly(Ids):
        def encode(self, rows: pa.Table, shard: str, start: int) -> pa.Table:
            if (shard, start) == ("train/00001.parquet", 8):
                raise Died
            return super().encode(rows, shard, start)

    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(60)))))
    deaths, died = Deaths(), 0
    while True:
        try:
            with pytest.raises(BadShardError, match="every process died that read .* 8 to 16"):
                encoded_units(corpus, Deadly(), notes=deaths)
            break
        except Died:
            died += 1
    assert died == 2
    units = encoded_units(corpus, Deadly(), skip_bad=True, notes=deaths)
    assert [unit.start for unit in units] == [0, 8, 16, 0, 16, 0, 8, 16]
    (reason,) = bad_shards(Location(f"{corpus.location.uri}-scores")).values()
    assert "rows 8 to 16" in reason


def test_a_death_that_does_not_happen_again_is_forgotten(tmp_path: Path) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(60)))))
    deaths = Deaths()
    for _ in range(9):
        assert len(encoded_units(corpus, Ids(), notes=deaths)) == 9
    assert deaths.called.count("unit_reading") == deaths.called.count("unit_read") == 81


def test_a_task_reads_on_where_nobody_can_say_whether_it_began_before() -> None:
    class Gone:
        """A handle of an actor that has died."""

        @property
        def task_reading(self) -> "Gone":
            return self

        def remote(self, task: str) -> None:
            raise RayActorError

    assert _notes_on("a.0-8.parquet", Gone()) is None
