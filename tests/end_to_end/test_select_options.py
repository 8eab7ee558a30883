"""What `select` can be asked for, on a real Ray, against sorting by hand."""

import hashlib
import json
import math
import os
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bench.support import free_scorer
from sf_ray.cli import main
from sf_ray.output import sorted_tasks
from sf_ray.selection import corpus_pass, duplicate_tasks
from sf_ray.selection.lengths import length_of
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


def test_files_are_as_large_and_packed_as_was_asked_for_in_the_order_of_the_input(
    scored: list[Row], corpus: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    command = ("select", corpus, tmp_path / "scores", tmp_path / "out", "--keep-fraction", "0.5")
    asked = (*command, "--file-size", "3kB", "--compression", "gzip", "--row-group-size", "7")
    code, _, stderr = sf_ray_cli(*asked)
    assert code == 0, stderr
    best = ids(best_first(scored)[:100])
    expected = [row for row in scored if row["id"] in best]
    data = tmp_path / "out/data"
    assert read(data) == [{name: row[name] for name in [*SCHEMA.names, "ifd"]} for row in expected]
    paths = sorted(data.iterdir())
    assert [path.name for path in paths] == [f"part-{n:05d}.parquet" for n in range(len(paths))]
    assert len(paths) > 1
    files = [pq.read_metadata(path) for path in paths]
    assert max(file.row_group(0).num_rows for file in files) == 7
    assert {file.row_group(0).column(0).compression for file in files} == {"GZIP"}
    assert "nothing to do" in sf_ray_cli(*asked)[2]
    assert "nothing to do" not in sf_ray_cli(*command)[2]


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


def random_number(seed: int, row: Row) -> float:
    """Blake2b of the shard's name under the seed, joined with the row number, by SplitMix64."""
    key = hashlib.blake2b(row["shard"].encode(), digest_size=8, key=seed.to_bytes(8, "little"))
    number = row["row"] ^ int.from_bytes(key.digest(), "little")
    number = (number + 0x9E3779B97F4A7C15) % 2**64
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB % 2**64
    return ((number ^ (number >> 31)) >> 11) / 2**53


def length(row: Row) -> int:
    return int(length_of(np.array([row["answer_tokens"]]))[0])


def by_length(rows: list[Row], wanted: int) -> dict[int, int]:
    """The share of each length in the wanted rows: largest remainders first."""
    counts = Counter(map(length, rows))
    shares = {one: Fraction(wanted * count, len(rows)) for one, count in counts.items()}
    whole = {one: math.floor(share) for one, share in shares.items()}
    for one in sorted(shares, key=lambda one: (whole[one] - shares[one], one))[
        : wanted - sum(whole.values())
    ]:
        whole[one] += 1
    return whole


def first_of(rows: list[Row], counts: dict[int, int]) -> list[Row]:
    """The first rows of each length."""
    of_lengths = {one: [row for row in rows if length(row) == one] for one in counts}
    return [row for one, count in counts.items() for row in of_lengths[one][:count]]


# How each arm sorts the rows of a source, and which of them it then takes.
ARMS = {
    "ifd-low": (lambda row: row["ifd"], lambda rows, wanted: rows[:wanted]),
    "random": (lambda row: -random_number(5, row), lambda rows, wanted: rows[:wanted]),
    "longest": (lambda row: -row["answer_tokens"], lambda rows, wanted: rows[:wanted]),
    "length-normalised": (
        lambda row: -row["ifd"],
        lambda rows, wanted: first_of(rows, by_length(rows, wanted)),
    ),
    "length-matched": (
        lambda row: -row["ifd"],
        lambda rows, wanted: first_of(
            sorted(rows, key=lambda row: -random_number(5, row)),
            Counter(map(length, rows[:wanted])),
        ),
    ),
}


@pytest.mark.parametrize("by", ARMS)
def test_an_arm_with_everything_else_is_a_choice_by_hand(
    scored: list[Row], corpus: Path, tmp_path: Path, sf_ray_cli: Cli, by: str
) -> None:
    out = tmp_path / "out"
    quota = "meta.source:{code: 0.5, chat: 20, web: 1.0}"
    command = ("select", corpus, tmp_path / "scores", out, "--by", by, "--quota", quota)
    code, _, stderr = sf_ray_cli(
        *command, "--seed", "5", "--drop-duplicates", "--order", "ifd", "--export", "trl"
    )
    assert code == 0, stderr

    place, take = ARMS[by]
    best: dict[bytes, Row] = {}
    for row in sorted(scored, key=place):
        best.setdefault(row["digest"], row)
    kept, normalised = list[Row](), Counter[int]()
    rows = Counter(map(source_of, scored))
    wanted = {"code": rows["code"] // 2, "chat": 20, "web": rows["web"], "null": 0}
    for source, count in wanted.items():
        of_source = [row for row in best.values() if source_of(row) == source]
        kept += take(of_source, min(count, len(of_source)))
        normalised.update(by_length(of_source, min(count, len(of_source))))
    expected = best_first(sorted(kept, key=lambda row: row["id"]))
    assert len(expected) > 60

    # The highest IFD comes first, whatever the arm ranks by.
    assert [row["id"] for row in read(out / "data")] == [row["id"] for row in expected]
    exported = [
        json.loads(line)
        for path in sorted((out / "export/trl").rglob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert [one["completion"] for one in exported] == [
        [{"role": "assistant", "content": row["output"]}] for row in expected
    ]

    selection = json.loads((out / "manifest.json").read_text())["selection"]
    looks_at_score = by not in ("random", "longest")
    assert (selection["by"], selection["rank_by"]) == (by, "ifd" if looks_at_score else None)
    assert selection.get("seed") == (5 if by in ("random", "length-matched") else None)
    assert selection["dropped_duplicates"] == len(scored) - len(best)
    assert selection["kept_rows"] == len(expected)
    of_sources = Counter(map(source_of, expected))
    assert {name: one["kept"] for name, one in selection["groups"].items()} == {
        name: of_sources[name] for name in wanted
    }

    lengths = json.loads((out / "summary.json").read_text())["answer_lengths"]["lengths"]
    of_kept, of_all = Counter(map(length, expected)), Counter(map(length, scored))
    eligible = Counter(map(length, best.values()))
    assert [
        (one["rows"], one["eligible"], one["kept"], one["length_normalised"]) for one in lengths
    ] == [(of_all[n], eligible[n], of_kept[n], normalised[n]) for n in sorted(of_all)]
    if by == "length-normalised":
        assert normalised == of_kept
    page = (out / "report.html").read_text()
    assert f"<b>{len(expected)}</b><span>are kept" in page
    assert "High values below 1 are kept" not in page


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
