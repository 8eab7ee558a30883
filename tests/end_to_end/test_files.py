"""The whole job on corpora that are not Parquet, with a scorer that costs nothing."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from bench.support.corpora import make_rows
from tests.support.cli import Cli
from tests.support.storage import contents

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

Free = Callable[..., None]


@pytest.mark.release
def test_compressed_json_lines_with_a_broken_one(
    tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer()
    lines = [json.dumps({**row, "n": [i, 1.50]}) for i, row in enumerate(make_rows(60))]
    lines[30] = lines[30][:-5]
    corpus = tmp_path / "corpus"
    (corpus / "b").mkdir(parents=True)
    (corpus / "a.jsonl.gz").write_bytes(gzip.compress("\n\n".join(lines[:20]).encode()))
    (corpus / "b/c.jsonl.gz").write_bytes(gzip.compress("\n\n".join(lines[20:]).encode()))
    out = tmp_path / "out"
    command = [
        "run", corpus, out, "--model", tiny_model, "--keep-count", "12",
        "--max-length", "128", "--unit-rows", "16",
    ]  # fmt: skip

    code, _, stderr = sf_ray_cli(*command)
    assert code == 1
    assert "shard b/c.jsonl.gz, line 21: not valid JSON" in stderr.splitlines()[-1]
    assert "--on-bad-line skip" in stderr.splitlines()[-1]

    assert sf_ray_cli(*command, "--on-bad-line", "skip")[0] == 0
    before = contents(out)
    scores = ds.dataset(sorted((out / "scores").rglob("*.parquet"))).to_table().to_pylist()
    scores.sort(key=lambda score: (score["shard"], score["row"]))
    assert len(scores) == 60
    assert [i for i, score in enumerate(scores) if score["status"] == "bad_row"] == [11, 30]
    good = sorted(score["ifd"] for score in scores if score["ifd"] is not None)
    expected = {"data/a.jsonl.gz": b"", "data/b/c.jsonl.gz": b""}
    for line, score in zip(lines, scores, strict=True):
        if score["ifd"] is not None and score["ifd"] >= good[-12]:
            expected[f"data/{score['shard']}"] += f'{line[:-1]}, "ifd": {score["ifd"]}}}\n'.encode()
    assert {name: gzip.decompress(before[name]) for name in expected} == expected

    # The flag is not needed again, once the rows have scores.
    code, _, stderr = sf_ray_cli(*command)
    assert code == 0
    assert "nothing to do" in stderr
    assert contents(out) == before


def test_a_directory_as_save_to_disk_leaves_it(
    tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer()
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    table = pa.Table.from_pylist(make_rows(40)).append_column("meta", pa.array([{"n": 1}] * 40))
    for split in ("train", "test"):
        (corpus / split).mkdir(parents=True)
        for name in ("dataset_info.json", "state.json"):
            (corpus / split / name).write_text("{}")
        path = corpus / split / "data-00000-of-00001.arrow"
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=9)
    (corpus / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    code, _, stderr = sf_ray_cli(
        "run", corpus, out, "--model", tiny_model, "--keep-fraction", "0.25",
        "--max-length", "128", "--unit-rows", "16",
    )  # fmt: skip
    assert code == 0, stderr
    assert "2 shards, 80 rows" in stderr
    names = [f"{split}/data-00000-of-00001.arrow" for split in ("test", "train")]
    assert list(contents(out / "data")) == names
    kept = [pa.ipc.open_stream(out / "data" / name).read_all() for name in names]
    assert sum(part.num_rows for part in kept) == 20
    assert kept[0].schema.equals(table.schema.append(pa.field("ifd", pa.float64())))
    originals = table.to_pylist()
    for row in pa.concat_tables(kept).drop_columns("ifd").to_pylist():
        assert row in originals


def test_a_field_that_is_to_be_added_may_not_be_there(
    tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli
) -> None:
    corpus = tmp_path / "corpus.json"
    corpus.write_text('[{"prompt": "a", "completion": "b", "ifd": 1}]')
    code, _, stderr = sf_ray_cli(
        "run", corpus, tmp_path / "out", "--model", tiny_model, "--keep-count", "1"
    )
    assert code == 2
    assert "column 'ifd' already; name the added one with --ifd-column" in stderr


def test_a_corpus_without_rows_says_so(tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    code, _, stderr = sf_ray_cli(
        "score", tmp_path / "a.jsonl", tmp_path / "s", "--model", tiny_model
    )
    assert code == 1
    assert "its 1 JSON shards hold no rows" in stderr


@pytest.mark.release
def test_a_shard_that_ends_every_process_that_reads_it_is_named(
    tmp_path: Path, tiny_model: Path, corpus: Path, sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer(dies_reading="train/00001.parquet")
    out = tmp_path / "out"
    code, _, stderr = sf_ray_cli(
        "run", corpus, out, "--model", tiny_model, "--keep-fraction", "0.5",
        "--max-length", "128", "--unit-rows", "16", "--on-bad-shard", "skip",
    )  # fmt: skip
    assert code == 3, stderr
    assert "shard train/00001.parquet: every process died that read and encoded its rows " in stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert "train/00001.parquet" in json.dumps(manifest)
    assert not list((out / "data").rglob("00001*"))
