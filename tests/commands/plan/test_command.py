import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.support import free_scorer
from bench.support.corpora import make_rows, write_shards
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.engine import Engine
from sf_ray.engine.model_files import load_tokenizer, resolve_model
from sf_ray.engine.sequences import TokenSequences
from tests.support.cli import Cli
from tests.support.storage import S3

INTERVAL = {"estimate", "low", "high"}


def listing(*places: Path) -> dict[str, tuple[int, int]]:
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def encoded(model: Path, rows: list[dict[str, Any]]) -> list[Any]:
    encoder = Encoder(load_tokenizer(resolve_model(str(model))), 256)
    render = resolve_format(list(rows[0])).render
    return list(encoder.encode([render(row) for row in rows]))


def fed(sequences: Any) -> int:
    return sum(len(s.ids) - 1 for s in sequences if s.scored)


def plan_of(sf_ray_cli: Cli, *arguments: object) -> dict[str, Any]:
    code, out, err = sf_ray_cli("plan", *arguments, "--max-length", 256, "--json")
    assert code == 0, err
    return json.loads(out)  # and nothing else is printed


@pytest.mark.ray
def test_a_plan_counts_what_is_to_be_scored_and_writes_nothing(
    ray_session: None,
    tmp_path: Path,
    corpus: Path,
    tiny_model: Path,
    sf_ray_cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = listing(tmp_path, tiny_model)
    given = ("--model", tiny_model, "--unit-rows", 16, "--output", tmp_path / "out")
    speed = ("--tokens-per-s", 50, "--price-per-hour", 36, "--actors", 4)
    told = plan_of(sf_ray_cli, corpus, *given, *speed)
    assert listing(tmp_path, tiny_model) == before
    assert not (tmp_path / "out").exists()

    rows = encoded(tiny_model, make_rows(120))
    conditioned, direct = (
        fed(chain(*(getattr(row, which) for row in rows))) for which in ("conditioned", "direct")
    )
    assert told["tokens"] == dict.fromkeys(INTERVAL, conditioned + direct)
    assert told["conditioned"]["estimate"] == conditioned
    assert told["direct"]["estimate"] == direct
    assert (told["shards"], told["rows"]) == (3, 120)
    assert told["bytes"] == sum(path.stat().st_size for path in corpus.rglob("*.parquet"))
    assert told["units"] == {"all": 9, "done": 0, "to_do": 9}
    statuses = [row.status.value for row in rows]
    assert told["sample"]["statuses"] == {one: statuses.count(one) for one in set(statuses)}
    assert told["sample"]["statuses"][Status.BAD_ROW] == 2
    assert told["sample"]["is_everything"]
    # One of 4 actors has 3 of the 9 units. A cluster of one node of 2 CPUs has room for one actor.
    seconds = (conditioned + direct) / 50 / 3
    assert told["time_s"]["estimate"] == pytest.approx(seconds)
    assert told["machine_hours"]["estimate"] == pytest.approx(4 * seconds / 3600)
    assert told["cost"]["estimate"] == pytest.approx(36 * 4 * seconds / 3600)
    assert told["scoring"]["machine"] == "node"
    assert told["speed"]["is_measured"] is False
    assert {name for name, value in told.items() if isinstance(value, dict)} >= {
        "units", "sample", "scoring", "speed", "tokens", "conditioned", "direct", "flops",
        "tokens_per_s", "time_s", "machine_hours", "cost", "encode_cpu_s",
    }  # fmt: skip
    assert all(set(told[name]) == INTERVAL for name in ("flops", "time_s", "cost", "tokens_per_s"))
    assert list(told) == [
        "input", "shards", "skipped_shards", "rows", "bytes", "units", "rows_to_do", "sample",
        "scoring", "speed", "feeding", "tokens", "conditioned", "direct", "flops", "tokens_per_s",
        "start_s", "time_s", "machine_hours", "cost", "encode_cpu_s",
    ]  # fmt: skip


@pytest.mark.release
@pytest.mark.ray
@pytest.mark.s3
def test_units_with_scores_are_not_in_the_price(
    ray_session: None, s3: S3, tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    import s3fs

    store = s3fs.S3FileSystem(**s3.options, use_listings_cache=False)
    bucket = s3.bucket.removeprefix("s3://")
    rows = make_rows(64, seed=4)
    write_shards(tmp_path / "corpus", rows[:40], shards=2)
    store.put(str(tmp_path / "corpus"), f"{bucket}/corpus", recursive=True)
    given = ("--model", tiny_model, "--storage-options", s3.options_json, "--unit-rows", 16)
    places = (f"{s3.bucket}/corpus", f"{s3.bucket}/scores")
    code, _, err = sf_ray_cli(
        "score", *places, *given, "--max-length", 256, specs=free_scorer.specs()
    )
    assert code == 0, err

    def seen() -> dict[str, tuple[int, str]]:
        return {
            name: (one["size"], one["ETag"])
            for name, one in store.find(bucket, detail=True).items()
        }  # fmt: skip

    before = seen()
    scores = ("--scores", places[1])
    code, out, err = sf_ray_cli("plan", places[0], *given, *scores, "--max-length", 256)
    assert code == 0, err
    assert out.splitlines()[-1].strip() == "nothing to do: all units have scores"
    assert "units   4: 4 have scores, 0 to score" in out
    assert seen() == before

    write_shards(tmp_path / "new", rows[40:], shards=1)
    store.put(str(tmp_path / "new/extra/00000.parquet"), f"{bucket}/corpus/new.parquet")
    before = seen()
    told = plan_of(sf_ray_cli, places[0], *given, *scores, "--tokens-per-s", 50)
    assert told["units"] == {"all": 6, "done": 4, "to_do": 2}
    assert (told["rows"], told["rows_to_do"]) == (64, 24)
    new = encoded(tiny_model, rows[40:])
    assert told["tokens"]["estimate"] == fed(chain(*((*r.conditioned, *r.direct) for r in new)))
    assert seen() == before


@pytest.mark.ray
def test_a_speed_is_measured_and_counts_what_whole_units_share(
    ray_session: None, tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli
) -> None:
    prompt = "which of these words is in the list of all words that they have " * 4
    rows = [
        {"instruction": prompt, "output": f"{row['output']} {i}"}
        for i, row in enumerate(make_rows(96, seed=2))
    ]
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus/0.parquet")
    before = listing(tmp_path)
    given = ("--model", tiny_model, "--unit-rows", 48)
    told = plan_of(sf_ray_cli, tmp_path / "corpus", *given, "--measure-s", 1)
    assert listing(tmp_path) == before

    speed = told["speed"]
    assert speed["is_measured"]
    assert 0 < speed["measured_s"] < 20
    every = encoded(tiny_model, rows)
    engine = Engine(tiny_model)
    plain = computed = 0
    for unit in (every[:48], every[48:]):
        pool = [s for row in unit for s in (*row.conditioned, *row.direct)]
        plain, computed = plain + fed(pool), computed + engine.work(TokenSequences.of(pool)).tokens
    assert speed["saved_in_units"] == pytest.approx(1 - computed / plain, abs=0.02)
    assert speed["saved_in_units"] > 0.4
    assert speed["saved_in_measured_parts"] <= speed["saved_in_units"]
    assert told["start_s"] > 0
    scoring_s = told["time_s"]["estimate"] - told["start_s"]
    assert scoring_s == pytest.approx(plain / told["tokens_per_s"]["estimate"])
    assert told["time_s"]["low"] < told["time_s"]["estimate"] < told["time_s"]["high"]


@pytest.mark.ray
def test_rows_that_cannot_be_scored_are_named_and_not_divided_by(
    ray_session: None, tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli
) -> None:
    def plan(rows: list[dict[str, Any]], *more: object) -> tuple[int, str, str]:
        shutil.rmtree(tmp_path / "corpus", ignore_errors=True)
        (tmp_path / "corpus").mkdir()
        schema = pa.schema([("instruction", pa.string()), ("output", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "corpus/0.parquet")
        given = ("--model", tiny_model, "--max-length", 256, "--tokens-per-s", 50)
        return sf_ray_cli("plan", tmp_path / "corpus", *given, *more)

    code, _, err = plan([{"instruction": "one", "output": ""}] * 6)
    assert code == 1
    assert "error: none of 6 sampled rows can be scored: 6 empty_answer; look at --format" in err

    code, out, err = plan([{"instruction": "one", "output": text} for text in ("", "that it is")])
    assert code == 0
    assert "note: 50.0% of the sampled rows cannot be used (1 empty_answer, 1 ok)" in err
    assert "empty_answer 50.0%" in " ".join(out.split())

    code, out, err = plan([])
    assert code == 0, err
    assert out.splitlines()[-1].strip() == "nothing to do: the corpus has no rows"

    code, _, err = plan([{"instruction": "one", "output": "two"}], "--model", tmp_path / "none")
    assert code == 1
    assert f"error: model {tmp_path / 'none'}" in err


@pytest.mark.ray
def test_a_broken_line_is_told_as_a_run_tells_it(
    ray_session: None, tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli
) -> None:
    lines = [json.dumps({"instruction": "what is it", "output": "it is a word"})] * 20
    lines[15:15] = ["{broken"]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.jsonl").write_text("\n".join(lines) + "\n")
    given = ("--model", tiny_model, "--max-length", 256, "--tokens-per-s", 50)
    code, _, err = sf_ray_cli("plan", tmp_path / "corpus", *given)
    assert code == 1
    assert "error: shard a.jsonl, line 16: not valid JSON" in err
    code, out, _ = sf_ray_cli("plan", tmp_path / "corpus", *given, "--on-bad-line", "skip")
    assert code == 0
    assert "bad_row" in out


@pytest.mark.ray
def test_a_shard_that_cannot_be_read_is_told_or_left_out(
    ray_session: None, tmp_path: Path, corpus: Path, tiny_model: Path, sf_ray_cli: Cli
) -> None:
    broken = corpus / "train/00001.parquet"
    data = bytearray(broken.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little") + 8
    data[4:-footer] = b"x" * (len(data) - footer - 4)
    broken.write_bytes(data)
    given = ("--model", tiny_model, "--max-length", 256, "--tokens-per-s", 50)
    code, _, err = sf_ray_cli("plan", corpus, *given)
    assert code == 1
    assert "error: shard train/00001.parquet: cannot be read" in err
    code, out, err = sf_ray_cli("plan", corpus, *given, "--on-bad-shard", "skip")
    assert code == 0, err
    assert "note: 40 of 120 sampled rows lie in shards that cannot be read" in err
    assert "80 of 120 rows to score" in out


@pytest.mark.ray
def test_too_few_cpus_for_the_gpus_are_told(
    ray_session: None, corpus: Path, tiny_model: Path, sf_ray_cli: Cli
) -> None:
    given = ("--model", tiny_model, "--max-length", 256, "--device", "cuda", "--actors", 1)
    # A GPU that scores this fast is faster than any core reads.
    code, out, err = sf_ray_cli("plan", corpus, *given, "--tokens-per-s", 1e9)
    assert code == 0, err
    assert "note: one core reads and encodes " in err
    assert "GPUs would wait, and scoring takes longer than this plan says; add nodes" in err
    assert "; 1 actor at " in " ".join(out.split())


def test_a_given_speed_is_not_measured(tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli) -> None:
    given = ("--model", tiny_model, "--tokens-per-s", 50, "--measure-s", 5)
    code, _, err = sf_ray_cli("plan", tmp_path, *given)
    assert code == 2
    assert "error: --tokens-per-s and --measure-s exclude each other" in err


def test_a_place_without_shards_is_told_as_a_run_tells_it(
    tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli
) -> None:
    code, _, err = sf_ray_cli("plan", tmp_path, "--model", tiny_model)
    assert code == 1
    assert "no shards found" in err
