"""What `select` can be asked for, on a real Ray, against sorting by hand."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bench.support import free_scorer
from sf_ray.cli import main
from sf_ray.output import sorted_tasks
from sf_ray.selection import corpus_pass, duplicate_tasks
from tests.support.cli import Cli
from tests.support.storage import copy_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

Row = dict[str, Any]

SCHEMA = pa.schema(
    [("id", pa.int64()), ("instruction", pa.string()), ("output", pa.string())]
    + [("tag", pa.dictionary(pa.int8(), pa.string()))]
    + [("meta", pa.struct([("source", pa.string()), ("stars", pa.int32())]))]
)


def output_of(number: int) -> str:
    if number % 5 == 4:
        return "a copy" + "!" * (number % 3)
    return "so " * (number % 17) + str(number) if number % 17 else ""


def write_corpus(folder: Path) -> None:
    """200 rows in 4 shards, of three sources and some without; every fifth a copy."""
    sources = ["code", "chat", "chat", "web", None]
    rows = [
        {
            "id": number,
            "instruction": "copy it" if number % 5 == 4 else f"count to {number}",
            "output": output_of(number),
            "tag": "ab"[number % 2],
            "meta": {"source": sources[number % 7 % 5], "stars": number % 4}
            if number % 11
            else None,
        }
        for number in range(200)
    ]
    (folder / "more").mkdir(parents=True)
    for shard in range(4):
        part = pa.Table.from_pylist(rows[shard * 50 : shard * 50 + 50], schema=SCHEMA)
        name = f"{'more/' if shard > 1 else ''}{shard:05d}.parquet"
        pq.write_table(part, folder / name, row_group_size=20)


@pytest.fixture(scope="module")
def made(ray_session: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and its scores."""
    folder = tmp_path_factory.mktemp("made")
    write_corpus(folder / "corpus")
    command = ["score", f"{folder}/corpus", f"{folder}/scores", "--model", str(tiny_model)]
    command += ["--unit-rows", "16", "--max-length", "128"]
    assert main(command, free_scorer.specs(free_scorer.Settings(digests=True))) == 0
    return folder


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    return copy_of(made, tmp_path) / "corpus"


@pytest.fixture
def scored(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The corpus with scores in `scores`; rows in its order, each with its scores.

    Tasks are made so small that there are several of each.
    """
    monkeypatch.setattr(corpus_pass, "UNITS_A_TASK", 3)
    monkeypatch.setattr(duplicate_tasks, "_UNITS_A_TASK", 2)
    monkeypatch.setattr(duplicate_tasks, "_UNITS_A_PART", 1)
    monkeypatch.setattr(duplicate_tasks, "_ROWS_A_PART", 80)
    monkeypatch.setattr(sorted_tasks, "_TASK_BYTES", 2000)
    monkeypatch.setattr(sorted_tasks, "_TASK_PART_BYTES", 0)
    files = sorted((tmp_path / "scores").rglob("*.parquet"))
    scores = ds.dataset(files).to_table().to_pylist()
    scores.sort(key=lambda score: (score["shard"], score["row"]))
    return [row | score for row, score in zip(read(corpus), scores, strict=True)]


def read(folder: Path) -> list[Row]:
    paths = sorted(folder.rglob("*.parquet"), key=lambda path: path.relative_to(folder).as_posix())
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def source_of(row: Row) -> str:
    return (row["meta"] or {}).get("source") or "null"


def best_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row["ifd"])  # stable: earlier first


def ids(rows: list[Row]) -> set[int]:
    return {row["id"] for row in rows}


def without_copies(rows: list[Row]) -> list[Row]:
    best: dict[bytes, Row] = {}
    for row in best_first(rows):
        best.setdefault(row["digest"], row)
    stays = {row["id"] for row in best.values()}
    return [row for row in rows if row["id"] in stays]


def test_quotas_of_what_is_left_within_bounds_and_without_copies(
    scored: list[Row], corpus: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    out = tmp_path / "out"
    command = ("select", corpus, tmp_path / "scores", out)
    quota = 'meta.source:{code: 0.5, chat: 7, absent: 3, web: 1.0, "*": 0.1}'
    code, stdout, stderr = sf_ray_cli(
        *command, "--quota", quota, "--drop-duplicates", "--min-answer-tokens", "6",
        "--max-answer-tokens", "45", "--min-ifd", "0.45", "--max-ifd", "0.95",
    )  # fmt: skip
    assert code == 0, stderr

    eligible = [
        row for row in scored if 0.45 <= row["ifd"] < 0.95 and 6 <= row["answer_tokens"] <= 45
    ]
    candidates = without_copies(eligible)
    rows = Counter(map(source_of, scored))
    wanted = {
        "code": rows["code"] // 2, "chat": 7, "web": rows["web"], "null": rows["null"] // 10,
        "absent": 3,
    }  # fmt: skip
    kept, groups = set(), {}
    for source, count in wanted.items():
        of_source = [row for row in candidates if source_of(row) == source]
        places = best_first(of_source)[:count]
        kept |= {row["id"] for row in places}
        groups[source] = (rows[source], len(of_source), count, len(places))
        groups[source] += (places[-1]["ifd"] if places else None,)
    assert len(eligible) > len(candidates) > len(kept) > 20
    assert [row["id"] for row in read(out / "data")] == [
        row["id"] for row in scored if row["id"] in kept
    ]

    selection = json.loads((out / "manifest.json").read_text())["selection"]
    assert selection["quota"]["meta.source"]["chat"] == 7
    assert selection["dropped_duplicates"] == len(eligible) - len(candidates)
    assert selection["eligible_rows"] == len(candidates)
    assert selection["kept_rows"] == len(kept)
    assert {
        name: (one["rows"], one["eligible"], one["wanted"], one["kept"])
        + ((one["cutoff"] or {}).get("ifd"),)
        for name, one in selection["groups"].items()
    } == groups
    said = " ".join(stdout.split())
    assert "ok, with an IFD from 0.45 to 0.95, 6 to 45 answer tokens" in said
    assert "values of meta.source that do not occur in the corpus: 'absent'" in said
    assert "fewer eligible rows than were asked for: all of those are kept: 'web'" in said

    assert "nothing to do" in sf_ray_cli(
        *command, "--quota", quota, "--drop-duplicates", "--min-answer-tokens", "6",
        "--max-answer-tokens", "45", "--min-ifd", "0.45", "--max-ifd", "0.95",
    )[2]  # fmt: skip


def test_what_stands_in_excluded_files_and_all_its_copies_are_not_kept(
    scored: list[Row], corpus: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    held_out, chats = tmp_path / "held-out", tmp_path / "chats.jsonl"
    command = ["select", str(corpus), str(tmp_path / "scores")]
    assert sf_ray_cli(*command, str(held_out), "--by", "random", "--keep-count", "30")[0] == 0
    # Another file type and format, with a row that holds no example.
    said = [{"role": "user", "content": "count to 3"}, {"role": "assistant", "content": "so 3"}]
    said[1]["content"] = output_of(3)
    lines = [{"messages": said}, {"messages": None}]
    chats.write_text("".join(json.dumps(line) + "\n" for line in lines))

    held = {row["digest"] for row in scored if row["id"] in ids(read(held_out / "data"))}
    held |= {row["digest"] for row in scored if row["id"] == 3}
    out = tmp_path / "out"
    command += [str(out), "--exclude", f"{held_out}/data,{chats}", "--keep-fraction", "0.5"]
    code, stdout, stderr = sf_ray_cli(*command, "--drop-duplicates")
    assert code == 0, stderr
    excluded = [row for row in scored if row["digest"] in held]
    assert len(excluded) > 31, "copies are among them"
    assert f"{len(excluded)} rows are equal to one of" in stderr
    assert "1 rows there hold no example" in stderr
    eligible = [row for row in scored if row["digest"] not in held and (row["ifd"] or 2) < 1]
    candidates = without_copies(eligible)
    assert ids(read(out / "data")) == {row["id"] for row in best_first(candidates)[:100]}
    selection = json.loads((out / "manifest.json").read_text())["selection"]
    assert selection["excluded_rows"] == len(excluded)
    assert [files["rows"] for files in selection["excluded"]] == [30, 2]
    assert selection["eligible_rows"] == len(candidates)
    assert selection["dropped_duplicates"] == len(eligible) - len(candidates)
    assert "and not excluded" in " ".join(stdout.split())

    assert "nothing to do" in sf_ray_cli(*command, "--drop-duplicates")[2]
    chats.write_text("".join(json.dumps(line) + "\n" for line in lines[:1]))
    assert "nothing to do" not in sf_ray_cli(*command, "--drop-duplicates")[2]


def test_the_best_come_first_in_files_that_are_the_same_on_every_run(
    scored: list[Row],
    corpus: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = sum(path.stat().st_size for path in corpus.rglob("*.parquet"))
    monkeypatch.setattr(sorted_tasks, "PART_BYTES", -(-size // 8))
    expected = best_first(scored)[:100]
    written = []
    for out in (tmp_path / "one", tmp_path / "two"):
        command = ("select", corpus, tmp_path / "scores", out, "--keep-fraction", "0.5")
        code, _, stderr = sf_ray_cli(*command, "--order", "ifd")
        assert code == 0, stderr
        written.append({path.name: path.read_bytes() for path in (out / "data").iterdir()})
    assert sorted(written[0]) == [f"part-{part:05d}.parquet" for part in range(4)]
    assert written[0] == written[1]
    data = tmp_path / "one/data"
    assert [pq.read_metadata(data / name).num_rows for name in sorted(written[0])] == [25] * 4
    columns = SCHEMA.names
    assert read(data) == [{name: row[name] for name in [*columns, "ifd"]} for row in expected]
    assert pq.read_schema(data / "part-00000.parquet").equals(SCHEMA.append(pa.field("ifd", "f8")))

    # In the input's order again: the parts make room, and the other way round.
    assert sf_ray_cli(*command)[0] == 0
    assert sorted(path.name for path in (tmp_path / "two/data").rglob("*.parquet")) == [
        path.name for path in sorted(corpus.rglob("*.parquet"))
    ]
    code, stdout, _ = sf_ray_cli(*command[:-2], "--keep-count", "200", "--order", "ifd",
                                 "--max-prompt-tokens", "0", "--drop-duplicates")  # fmt: skip
    assert code == 0
    assert "no more have IFD below 1, 0 prompt tokens or fewer and are no copies" in stdout
    assert [p.name for p in (tmp_path / "two/data").rglob("*.parquet")] == ["part-00000.parquet"]
    assert {row["output"] for row in read(tmp_path / "two/data")} == {""}


def test_a_shard_that_cannot_be_read_is_skipped_whichever_pass_meets_it(
    scored: list[Row], corpus: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    bad = corpus / "more/00002.parquet"
    data = bytearray(bad.read_bytes())
    modified = bad.stat()
    data[4:2000] = b"\xff" * 1996  # the footer is whole
    bad.write_bytes(data)
    os.utime(bad, ns=(modified.st_atime_ns, modified.st_mtime_ns))
    command = ("select", corpus, tmp_path / "scores", tmp_path / "out", "--quota")
    code, _, stderr = sf_ray_cli(*command, "meta.source=0.2")
    assert code == 1
    assert "shard more/00002.parquet: cannot be read" in stderr
    code, _, stderr = sf_ray_cli(
        *command, "meta.source=0.2", "--on-bad-shard", "skip", "--order", "ifd"
    )
    assert code == 3, stderr
    assert "note: skipping shard more/00002.parquet" in stderr
    left = [row for row in scored if row["shard"] != "more/00002.parquet"]
    expected = [
        row
        for source, rows in Counter(map(source_of, left)).items()
        for row in best_first([row for row in left if source_of(row) == source])[: rows // 5]
    ]
    assert [row["id"] for row in read(tmp_path / "out/data")] == [
        row["id"] for row in best_first(sorted(expected, key=lambda row: row["id"]))
    ]


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        ("nowhere=0.1", "no column 'nowhere'; it has id, instruction, output, tag, meta.source"),
        ("meta.from=0.1", "no column 'meta.from'"),
        ("meta=0.1", "'meta' has the type struct<"),
    ],
)
def test_a_column_that_can_have_no_quotas_is_named_before_anything_is_scored(
    corpus: Path, tmp_path: Path, sf_ray_cli: Cli, quota: str, words: str
) -> None:
    out = tmp_path / "out"
    code, _, stderr = sf_ray_cli("run", corpus, out, "--model", "demo", "--quota", quota)
    assert code == 2
    assert words in stderr
    assert not out.exists()
