import json
from pathlib import Path

import pyarrow as pa
import pytest

from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.sampling import Segment, spread_segments
from sf_ray.errors import SfRayError
from sf_ray.scoring.bad_rows import (
    SHOWN,
    BadRow,
    bad_rows_of,
    check_bad_fraction,
    check_bad_rows,
    count_statuses,
    only_bad,
)
from sf_ray.storage.location import Location


def test_bad_rows_of_a_unit_are_its_first_ones() -> None:
    status = pa.chunked_array([["ok", "bad_row"], ["answer_too_short", "empty_answer"]])
    assert only_bad(count_statuses(status)) == {"bad_row": 1, "empty_answer": 1}
    assert bad_rows_of("s", range(10, 10 + len(status)), status) == [
        ("s", 11, "bad_row"),
        ("s", 13, "empty_answer"),
    ]
    assert bad_rows_of("s", range(9), pa.chunked_array([["bad_row"] * 9])) == [
        BadRow("s", row, "bad_row") for row in range(SHOWN)
    ]


def test_too_many_bad_rows_of_a_sample_are_refused_and_one_is_named(corpus: Path) -> None:
    plan = plan_corpus(Location(str(corpus)))
    shard, other = plan.shards[:2]
    (_, unit), (_, last) = spread_segments([5, 5], 10, 0, 2)
    segments = [Segment(shard, unit, pa.table({})), Segment(other, last, pa.table({}))]
    status = ["ok"] * 7 + ["bad_row", "ok", "empty_answer"]
    scores = pa.table({"shard": [""] * 10, "row": range(10), "status": status})
    check_bad_rows(segments, scores, 0.2)
    with pytest.raises(
        SfRayError,
        match=r"more than 10\.0% of 10 sampled rows .*1 bad_row, 1 empty_answer, "
        rf"e\.g\. row 2 of {other.file.relative}",
    ):
        check_bad_rows(segments, scores, 0.1)


def test_too_many_bad_rows_of_a_corpus_are_refused_with_what_is_wrong(tmp_path: Path) -> None:
    lines = [json.dumps({"instruction": "a", "output": "b"})] * 7
    lines += ["{no", json.dumps({"instruction": 7, "output": "b"}), lines[0]]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    corpus = plan_corpus(Location(str(tmp_path)))
    row_format = resolve_format(["instruction", "output"])
    statuses = {"ok": 7, "bad_row": 2, "empty_answer": 1, "answer_too_short": 0}
    examples = [
        BadRow("x.jsonl", row, status)
        for row, status in ((7, "bad_row"), (8, "bad_row"), (9, "empty_answer"))
    ]
    check_bad_fraction(corpus, row_format, statuses, examples, 0.3)
    with pytest.raises(
        SfRayError,
        match=r"more than 20\.0% of 10 rows cannot be used: 2 bad_row, 1 empty_answer, e\.g\. "
        r"row 7 of x\.jsonl: not valid JSON .*; row 8 of x\.jsonl: .*instruction.*; "
        r"row 9 of x\.jsonl: the answer is empty\. Mend the corpus",
    ):
        check_bad_fraction(corpus, row_format, statuses, examples, 0.2)


def test_a_bad_row_that_cannot_be_read_again_is_named_all_the_same(corpus: Path) -> None:
    plan = plan_corpus(Location(str(corpus)))
    shard = plan.shards[0].file.relative
    (corpus / shard).unlink()
    row_format = resolve_format(["instruction", "output"])
    with pytest.raises(SfRayError, match=f"row 3 of {shard}: it cannot be read again"):
        check_bad_fraction(plan, row_format, {"bad_row": 1}, [BadRow(shard, 3, "bad_row")], 0)
