from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.data.datasource import WriteResult

from sf_ray.corpus.bundles import UnitRows, bundle_of
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.engine.sequences import TokenSequence
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import score_set_of
from sf_ray.scoring.score_table import SCORE_SCHEMA, score_table
from sf_ray.scoring.stages.sink import PieceSink, refuse_unseen
from sf_ray.storage.files import put_bytes
from sf_ray.storage.location import Location


def encoded(lengths: list[int]) -> pa.Table:
    def sequence(length: int) -> TokenSequence:
        return TokenSequence.scored_from(np.arange(length, dtype=np.int32), 1)

    return encoded_table(
        [EncodedRow(Status.OK, 1, n, False, (sequence(n),), (sequence(n + 1),)) for n in lengths]
    )


def test_the_sink_puts_each_unit_of_a_block_and_may_do_so_twice(tmp_path: Path) -> None:
    losses = np.array([0.5, 1.0, 0.25, np.nan])
    tables = [score_table("s", start, encoded([3, 3]), losses) for start in (0, 2)]
    names = [f"a/p{i}.{2 * i:012d}-{2 * i + 2:012d}.parquet" for i in range(2)]
    units = [UnitRows("s", 2 * i, names[i], table) for i, table in enumerate(tables)]
    bundles = [bundle_of([unit]) for unit in units]
    for blocks in (bundles, [bundle_of(units)], [pa.concat_tables(bundles)]):
        sink = PieceSink(Location(str(tmp_path)))
        put = sink.write(blocks, None)
        sink.on_write_complete(WriteResult(2, 0, [put, None]))
        assert sink.nodes.keys() == {*names}
        for i, table in enumerate(tables):
            written = pq.read_table(tmp_path / names[i])
            assert written.equals(table)
            assert written.schema.equals(SCORE_SCHEMA)
            assert written["row"].to_pylist() == [2 * i, 2 * i + 1]
            assert written["status"].to_pylist() == ["ok", "non_finite"]
            assert written["ifd"].to_pylist() == [np.exp(-0.5), None]


def test_scores_that_a_node_wrote_elsewhere_are_missed_by_name_and_not_made_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sf_ray.storage.files._PAUSE_S", 0.0)
    plan = plan_corpus(Location(str(corpus)))
    score_set = score_set_of(Location(str(tmp_path)), {"unit_rows": 50})
    left = score_set.units(plan)
    (seen, unseen, *_) = [shard.piece(unit) for shard, units in left for unit in units]
    put_bytes(score_set.pieces.join(seen), b"a piece that the listing lacks")
    refuse_unseen(score_set, left, {})  # nobody says that they were written
    refuse_unseen(score_set, left, {seen: "10.0.0.1"})
    with pytest.raises(SfRayError) as error:
        refuse_unseen(score_set, left, {seen: "10.0.0.1", unseen: "10.0.0.2"})
    assert str(error.value).startswith(f"{score_set.pieces.path}: some units have no scores: ")
    assert f"does not see 1 pieces that were written, e.g. {unseen}, which node 10.0.0.2" in str(
        error.value
    )
