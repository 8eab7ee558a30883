import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.commands.setup import Specs, find_encoding
from sf_ray.commands.usable import check_sample, usable_shards
from sf_ray.config.quotas import Quota
from sf_ray.config.selection_options import RunOptions
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.plan_cache import sample_of
from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.errors import BadRowError, BadShardError, SfRayError
from sf_ray.storage.location import Location

ALPACA = resolve_format(["instruction", "input", "output"])
TEXTS = pa.array(["a", "b"])


def options(**values: Any) -> RunOptions:
    given = {"input": "in", "output": "out", "model": "m", "keep_fraction": 0.5}
    return RunOptions.model_validate(given | values)


def corpus_of(folder: Path, **shards: dict[str, Any]) -> Corpus:
    for name, columns in shards.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return plan_corpus(Location(str(folder)))


def test_shards_may_differ_in_what_is_not_used(tmp_path: Path) -> None:
    corpus = corpus_of(
        tmp_path,
        a={"instruction": TEXTS, "input": TEXTS, "output": TEXTS, "id": [1, 2]},
        b={"output": TEXTS.cast(pa.large_string()), "instruction": TEXTS, "id": TEXTS},
        c={"instruction": TEXTS, "input": pa.nulls(2), "output": TEXTS.dictionary_encode()},
    )
    assert usable_shards(options(), corpus, ALPACA) == corpus


def test_shards_whose_used_columns_will_not_do_are_refused_or_left_out(tmp_path: Path) -> None:
    good = {"instruction": TEXTS, "output": TEXTS, "source": TEXTS}
    corpus = corpus_of(tmp_path, a=good, b=good, c={"instruction": TEXTS, "source": TEXTS})
    with pytest.raises(BadShardError, match="shard c.parquet: it has no column 'output'"):
        usable_shards(options(), corpus, ALPACA)
    corpus = corpus_of(tmp_path, d=good | {"source": [{"at": 1}] * 2})
    by_source = options(keep_fraction=None, quota=Quota("source", {"a": 0.5}))
    with pytest.raises(SfRayError, match="2 of 4 shards cannot be used") as error:
        usable_shards(by_source, corpus, ALPACA)
    assert "d.parquet: column 'source' has the type struct" in str(error.value)
    skip = options(on_bad_shard="skip", report_by="source")
    left = usable_shards(skip, corpus, ALPACA)
    assert [shard.file.relative for shard in left.shards] == ["a.parquet", "b.parquet"]
    assert [shard.relative for shard in left.skipped] == ["c.parquet", "d.parquet"]


@pytest.mark.parametrize("on_bad_shard", ["fail", "skip"])
def test_a_column_that_will_not_do_anywhere_is_refused(tmp_path: Path, on_bad_shard: str) -> None:
    wrong = {"instruction": TEXTS, "output": [1, 2]}
    corpus = corpus_of(tmp_path, a=wrong, b=wrong)
    with pytest.raises(
        SfRayError, match=r"a.parquet: column 'output' .* expected text; the other 1 .*--columns"
    ):
        usable_shards(options(on_bad_shard=on_bad_shard), corpus, ALPACA)


def test_an_order_that_needs_one_schema_is_refused_before_anything_is_scored(
    tmp_path: Path,
) -> None:
    alpaca = {"instruction": TEXTS, "output": TEXTS}
    corpus = corpus_of(tmp_path, a=alpaca | {"id": [1, 2]}, b=alpaca | {"id": TEXTS})
    words = "a.parquet and b.parquet differ: column 'id' is int64 and string. Use --order input"
    with pytest.raises(SfRayError, match=words):
        usable_shards(options(order="ifd"), corpus, ALPACA)
    assert usable_shards(options(order="input"), corpus, ALPACA) == corpus


def checked(folder: Path, model: Path, lines: list[str], **values: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    corpus = plan_corpus(Location(str(folder)))
    asked = options(model=str(model), max_length=64, **values)
    sample = sample_of(None, corpus)
    check_sample(asked, corpus, sample, find_encoding(asked, corpus, sample, Specs()))


GOOD = json.dumps({"instruction": "Say it again.", "output": "It, and again it."})
EMPTY = json.dumps({"instruction": "Say it again.", "output": ""})
LONG = json.dumps({"instruction": "Say it again. " * 99, "output": "It, and again it."})


def test_a_corpus_of_which_no_row_can_be_scored_is_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(SfRayError, match=r"more than 5.0% of 12 rows cannot be used: 12 empty_ans"):
        checked(tmp_path, tiny_model, [EMPTY] * 12)
    words = r"none of 12 sampled rows can be scored: 12 prompt_fills_window, e.g. row 0 of a.jsonl"
    with pytest.raises(SfRayError, match=words + ".*--max-bad-fraction 1"):
        checked(tmp_path, tiny_model, [LONG] * 12)
    checked(tmp_path, tiny_model, [EMPTY] * 12, max_bad_fraction=1)
    checked(tmp_path, tiny_model, [LONG] * 12 + [GOOD])


def test_rows_behind_the_first_ones_count_too(tmp_path: Path, tiny_model: Path) -> None:
    checked(tmp_path, tiny_model, [EMPTY] * 20 + [GOOD] * 2000)
    with pytest.raises(SfRayError, match="more than 5.0% of 2,000 rows"):
        checked(tmp_path, tiny_model, [EMPTY] * 1000 + [GOOD] * 1000)


def test_a_broken_line_of_a_doubtful_corpus_is_named(tmp_path: Path, tiny_model: Path) -> None:
    lines = [EMPTY] * 20 + ["{"]
    with pytest.raises(BadRowError, match="a.jsonl, line 21"):
        checked(tmp_path, tiny_model, lines)
    with pytest.raises(SfRayError, match="20 empty_answer"):
        checked(tmp_path, tiny_model, lines, on_bad_line="skip")
