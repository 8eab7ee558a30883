"""`--drop-near-duplicates` and `--drop-overlap-with` on a real Ray, against comparison by hand."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bench.support import free_scorer
from bench.support.corpora import make_rows
from bench.support.free_scorer import FreeEmbedder
from sf_ray.cli import main
from sf_ray.selection.near import embedding_tasks, overlap_tasks, text_tasks
from sf_ray.selection.near.signatures import least_equal, shingles_of, signatures_of
from tests.support.cli import Cli
from tests.support.near import dropped_by_hand
from tests.support.storage import copy_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

Row = dict[str, Any]
Select = Callable[..., tuple[str, str]]


def corpus_rows() -> list[Row]:
    """96 rows, every fourth of which is an earlier one with a few words changed."""
    rows = [row for row in make_rows(140) if row["instruction"] and row["output"]][:96]
    rng = np.random.default_rng(5)
    for number in range(3, 96, 4):
        other = rows[int(rng.integers(0, number))]
        rows[number] = rows[number] | {
            "instruction": other["instruction"].upper() + "!" * int(rng.integers(0, 3)),
            "input": other["input"],
            "output": other["output"] + " indeed" * int(rng.integers(0, 2)),
        }
    return [{"id": number, **row} | {"id": str(number)} for number, row in enumerate(rows)]


def text_of(row: Row) -> str:
    return f"{row['instruction']}\n{row['input'] + chr(10) if row['input'] else ''}{row['output']}"


@pytest.fixture(scope="module")
def made(ray_session: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus of 3 shards and its scores, in 12 units."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "corpus").mkdir()
    for shard in range(3):
        part = pa.Table.from_pylist(corpus_rows()[shard * 32 : shard * 32 + 32])
        pq.write_table(part, folder / f"corpus/{shard}.parquet", row_group_size=16)
    command = ["score", f"{folder}/corpus", f"{folder}/scores", "--model", str(tiny_model)]
    command += ["--unit-rows", "8", "--max-length", "64", "--device", "cpu"]
    assert main(command, free_scorer.specs(free_scorer.Settings(digests=True))) == 0
    return folder


@pytest.fixture
def rows(made: Path) -> list[Row]:
    """The rows of the corpus, each with its score."""
    scores = ds.dataset(sorted((made / "scores").rglob("*.parquet"))).to_table().to_pylist()
    scores.sort(key=lambda score: (score["shard"], score["row"]))
    return [row | {"ifd": s["ifd"]} for row, s in zip(corpus_rows(), scores, strict=True)]


@pytest.fixture
def select(
    made: Path,
    tmp_path: Path,
    tiny_encoder: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
) -> Select:
    free_scorer(embeds=True, digests=True)
    copy_of(made, tmp_path)

    def run(output: str, *options: object, code: int = 0) -> tuple[str, str]:
        given = ("--encoder", tiny_encoder, "--device", "cpu", *options)
        places = (tmp_path / "corpus", tmp_path / "scores", tmp_path / output)
        found, out, err = sf_ray_cli("select", *places, *given)
        assert found == code, err
        return out, err

    return run


def runs_of(text: str) -> set[tuple[str, ...]]:
    words = text.lower().replace(".", " ").split()
    return {tuple(words[at : at + 13]) for at in range(len(words) - 12)}


def kept(output: Path) -> list[int]:
    return sorted(map(int, ds.dataset(output / "data").to_table()["id"].to_pylist()))


def selection_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "manifest.json").read_text())["selection"]


def best(rows: list[Row], dropped: list[int], count: int) -> list[int]:
    left = [row for row in rows if int(row["id"]) not in set(dropped)]
    left.sort(key=lambda row: -row["ifd"])  # stable: earlier first
    return sorted(int(row["id"]) for row in left[:count])


def test_near_rows_by_embedding_are_dropped_before_rows_are_counted(
    select: Select, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = FreeEmbedder().embed([text_of(row) for row in rows]).astype(np.float64)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = embeddings @ embeddings.T
    threshold = float(np.quantile(cosines, 0.97))
    dropped = dropped_by_hand(
        [row["ifd"] for row in rows], lambda a, b: cosines[a, b] >= threshold - 1e-6
    )
    assert 5 < len(dropped) < 60
    asked = ("--keep-count", 20, "--drop-near-duplicates", threshold)
    out, err = select("whole", *asked)
    assert kept(tmp_path / "whole") == best(rows, dropped, 20)
    near = selection_of(tmp_path / "whole")["near_duplicates"]
    assert near["dropped_rows"] == len(dropped)
    assert near["compared_rows"] == 96
    assert near["by"] == "embedding"
    assert near["encoder_fingerprint"]
    assert "sampled_rows" not in near, "all pairs were compared"
    assert selection_of(tmp_path / "whole")["eligible_rows"] == 96 - len(dropped)
    assert f"near copies: {len(dropped)} of 96 eligible rows" in err
    assert "of them near copies of better rows" in out

    # Diversity chooses among what is left, with the same embeddings.
    _, err = select("diverse", *asked, "--diversify-to", "5")
    assert "to embed" not in err
    assert set(kept(tmp_path / "diverse")) < set(kept(tmp_path / "whole"))
    assert selection_of(tmp_path / "diverse")["diversity"]["of_rows"] == 20

    # By parts, in any number of tasks: the same rows, and a sample says what was found.
    monkeypatch.setattr(embedding_tasks, "EXACT_ROWS", 20)
    monkeypatch.setattr(embedding_tasks, "PART_ROWS", 128)
    for bin_rows, chunk_rows in ((40, 30), (7, 1000)):
        monkeypatch.setattr(embedding_tasks, "_BIN_ROWS", bin_rows)
        monkeypatch.setattr(embedding_tasks, "CHUNK_ROWS", chunk_rows)
        output = f"parts-{bin_rows}"
        out, err = select(output, *asked)
        assert "to embed" not in err
        near = selection_of(tmp_path / output)["near_duplicates"]
        assert near["sampled_rows"] == 96
        assert near["sampled_found_rows"] / near["sampled_near_rows"] > 0.9
        assert "near copies among 96 sampled rows were found" in out
        assert (
            "near copies among 96 sampled rows" in (tmp_path / output / "report.html").read_text()
        )
    assert kept(tmp_path / "parts-7") == kept(tmp_path / "parts-40")


def test_near_rows_by_text_are_dropped_with_quotas_and_copies(
    select: Select, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signatures = signatures_of([shingles_of(text_of(row)) for row in rows])
    equal = (signatures[:, None] == signatures).sum(axis=2)
    dropped = dropped_by_hand(
        [row["ifd"] for row in rows], lambda a, b: equal[a, b] >= least_equal(0.7)
    )
    assert len(dropped) > 10
    asked = ("--drop-near-duplicates", 0.7, "--near-duplicates-by", "text")
    select("one", "--keep-fraction", 1.0, *asked, "--drop-duplicates")
    assert kept(tmp_path / "one") == best(rows, dropped, 96)
    selection = selection_of(tmp_path / "one")
    near = selection["near_duplicates"]
    assert near["dropped_rows"] + selection["dropped_duplicates"] == len(dropped)
    assert "encoder" not in near
    assert near["sampled_rows"] == near["compared_rows"] == 96 - selection["dropped_duplicates"]
    assert near["sampled_near_rows"] >= near["sampled_found_rows"] > 0

    # Cut into other tasks and parts, with a quota: the same rows are left.
    monkeypatch.setattr(text_tasks, "_UNITS_A_TASK", 5)
    monkeypatch.setattr(text_tasks, "_PART_BYTES", 4000)
    select("two", "--quota", "input=1.0", *asked)
    assert kept(tmp_path / "two") == kept(tmp_path / "one")
    assert selection_of(tmp_path / "two")["near_duplicates"]["dropped_rows"] == len(dropped)


def test_rows_that_overlap_with_evaluation_sets_are_not_kept_and_some_are_shown(
    select: Select, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap_tasks, "_UNITS_A_TASK", 5)
    long = [row for row in rows if len(row["output"].split()) > 14]
    hostile = "</td><script>alert(1)</script>\x1b[2J"
    lines = [
        {"question": f"Say {hostile}", "answer": f"{hostile} {long[1]['output'].upper()}!"},
        {"question": None, "answer": None},
        {"question": "Which?", "answer": "none of them"},
    ]
    (tmp_path / "eval").mkdir()
    name = "a<b>.jsonl"
    (tmp_path / "eval" / name).write_text("\n".join(map(json.dumps, lines)) + "\n")
    shared = set(long[1]["output"].lower().split())
    out, err = select(
        "out", "--keep-fraction", 1.0, "--by", "random", "--drop-overlap-with", tmp_path / "eval"
    )
    selection = selection_of(tmp_path / "out")
    # The row itself, and what is nearly its copy.
    gone = [int(row["id"]) for row in rows if runs_of(row["output"]) & runs_of(long[1]["output"])]
    assert kept(tmp_path / "out") == [i for i in range(96) if i not in gone]
    assert selection["overlapping_rows"] == len(gone) >= 1
    assert selection["overlap_with"][0]["rows"] == 3
    first = selection["overlaps"][0]
    assert (first["shard"], first["row"]) == (f"{gone[0] // 32}.parquet", gone[0] % 32)
    assert (first["in_shard"], first["in_row"]) == (name, 0)
    assert set(first["words"].split()) <= shared
    assert len(first["words"].split()) == 13
    assert f"{len(gone)} rows share 13 words in a row" in out
    assert "and not excluded" in " ".join(out.split())
    assert "2 texts of evaluation sets; 1 rows there hold no text" in err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Shared with evaluation sets" in page
    assert "a&lt;b&gt;.jsonl" in page
    assert "a<b>" not in page
    # The same question is not asked twice; another evaluation set is another question.
    asked = ("--keep-fraction", 1.0, "--by", "random", "--drop-overlap-with", tmp_path / "eval")
    assert "nothing to do" in select("out", *asked)[1]
    (tmp_path / "eval" / name).write_text(json.dumps(lines[2]) + "\n")
    assert "nothing to do" not in select("out", *asked)[1]
    assert kept(tmp_path / "out") == list(range(96))


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(
            ("--drop-near-duplicates", 0.9, "--near-duplicates-by", "text"),
            marks=pytest.mark.release,
        ),
        pytest.param(("--drop-near-duplicates", 0.999), marks=pytest.mark.release),
        ("--drop-overlap-with", "eval.jsonl"),
    ],
    ids=["text", "embedding", "overlap"],
)
def test_a_shard_that_cannot_be_read_is_skipped_when_its_texts_are_compared(
    select: Select, tmp_path: Path, asked: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("eval.jsonl").write_text('{"prompt": "which", "completion": "none"}\n')
    bad = tmp_path / "corpus/1.parquet"
    data, modified = bytearray(bad.read_bytes()), bad.stat()
    data[4:900] = b"\xff" * 896  # the footer is whole
    bad.write_bytes(data)
    os.utime(bad, ns=(modified.st_atime_ns, modified.st_mtime_ns))
    _, err = select("out", "--keep-fraction", 1.0, *asked, code=1)
    assert "shard 1.parquet: cannot be read" in err
    _, err = select("out", "--keep-fraction", 1.0, *asked, "--on-bad-shard", "skip", code=3)
    assert "note: skipping shard 1.parquet" in err
    assert not {*range(32, 64)} & {*kept(tmp_path / "out")}
    assert len(kept(tmp_path / "out")) > 40


def test_what_cannot_be_compared_is_refused_before_anything_runs(
    select: Select, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--keep-count", 5, "--drop-near-duplicates")
    _, err = select("out", *asked, 1.5, code=2)
    assert "--drop-near-duplicates" in err
    assert "less than or equal to 1" in err
    _, err = select("out", "--keep-count", 5, "--near-duplicates-by", "text", code=2)
    assert "--near-duplicates-by belongs to --drop-near-duplicates" in err
    _, err = select("out", "--keep-count", 5, "--drop-overlap-with", tmp_path / "none", code=1)
    assert str(tmp_path / "none") in err
    (tmp_path / "odd.jsonl").write_text('{"a": 1}\n')
    _, err = select("out", "--keep-count", 5, "--drop-overlap-with", tmp_path / "odd.jsonl", code=1)
    assert f"--drop-overlap-with {tmp_path}/odd.jsonl: " in err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _, err = select("out", *asked, 0.9, code=1)
    assert "--drop-near-duplicates needs one more package" in err
    assert "pip install 'sf_ray[diversity]'" in err
    monkeypatch.setattr("sf_ray.runtime.libraries.find_spec", lambda name: None)
    _, err = select("out", *asked, 0.9, "--near-duplicates-by", "text", code=1)
    assert "datasketch" in err
    assert "pip install 'sf_ray[minhash]'" in err
    assert not (tmp_path / "out").exists()
