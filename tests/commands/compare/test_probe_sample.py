import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.support.free_scorer import free_scores
from sf_ray.commands.compare.probe_sample import keep_scores, read_segments
from sf_ray.corpus.planning import plan_corpus
from sf_ray.errors import BadRowError, BadShardError, SfRayError
from sf_ray.scoring.pieces import read_piece
from sf_ray.scoring.score_set import score_set_of
from sf_ray.storage.location import Location


def test_the_sample_is_read_as_it_stands_in_the_corpus(corpus: Path) -> None:
    plan = plan_corpus(Location(str(corpus)))
    segments = read_segments(plan, ["id"], 50, 0, skip_bad=False, skip_bad_lines=False)
    assert sum(segment.rows.num_rows for segment in segments) == 50
    for segment in segments:
        whole = pq.read_table(corpus / segment.shard.file.relative)["id"]
        part = whole[segment.unit.start : segment.unit.stop]
        assert segment.rows["id"].to_pylist() == part.to_pylist()


def test_a_shard_that_cannot_be_read_fails_the_sample_or_is_passed_over(corpus: Path) -> None:
    plan = plan_corpus(Location(str(corpus)))
    (corpus / "extra" / "00000.parquet").unlink()
    with pytest.raises(BadShardError, match=r"extra/00000\.parquet"):
        read_segments(plan, ["id"], 50, 0, skip_bad=False, skip_bad_lines=False)
    segments = read_segments(plan, ["id"], 50, 0, skip_bad=True, skip_bad_lines=False)
    assert {segment.shard.file.relative for segment in segments} == {
        "train/00001.parquet",
        "train/00002.parquet",
    }
    for path in corpus.rglob("*.parquet"):
        path.unlink()
    with pytest.raises(SfRayError, match="not one row of the sample can be read"):
        read_segments(plan, ["id"], 50, 0, skip_bad=True, skip_bad_lines=False)


def test_a_broken_line_fails_the_sample_or_is_a_row_of_it(tmp_path: Path) -> None:
    lines = [json.dumps({"instruction": "a", "output": "b"})] * 5
    (tmp_path / "x.jsonl").write_text("\n".join([*lines, "{no", *lines]), encoding="utf-8")
    plan = plan_corpus(Location(str(tmp_path)))
    with pytest.raises(BadRowError, match="line 6"):
        read_segments(plan, ["output"], 11, 0, skip_bad=False, skip_bad_lines=False)
    segments = read_segments(plan, ["output"], 11, 0, skip_bad=False, skip_bad_lines=True)
    assert sum(segment.rows.num_rows for segment in segments) == 11


def test_each_segment_becomes_a_piece_with_the_places_of_its_rows(
    corpus: Path, tmp_path: Path
) -> None:
    plan = plan_corpus(Location(str(corpus)))
    segments = read_segments(plan, ["id"], 50, 0, skip_bad=False, skip_bad_lines=False)
    scores = free_scores("", 0, 50, pa.chunked_array([np.arange(50)]))
    score_set = score_set_of(Location(str(tmp_path / "scores")), {"unit_rows": 16})
    keep_scores(score_set, segments, scores)
    start = 0
    for segment in segments:
        piece = score_set.pieces.join(segment.shard.piece(segment.unit))
        table = read_piece(piece, ["shard", "row", "answer_tokens"])
        rows = segment.unit.rows
        assert table["shard"].to_pylist() == [segment.shard.file.relative] * rows
        assert table["row"].to_pylist() == list(range(segment.unit.start, segment.unit.stop))
        assert table["answer_tokens"].to_pylist() == list(range(start, start + rows))
        start += rows
    assert start == 50
