"""Faults that are really caused: killed processes, broken files, a bad network.

The result is that of an undisturbed run, or an error that says what to do; a run never hangs.
"""

import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bench.support import free_scorer
from bench.support.corpora import make_rows, write_shards
from bench.support.free_scorer import POISON
from bench.support.models import make_model
from bench.support.proxy import Proxy
from sf_ray import Scorer
from sf_ray.cli import main
from sf_ray.commands import pipeline
from sf_ray.commands.setup import Specs
from sf_ray.storage.lease.lease import lease
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.hash_scorer import HashEngineSpec
from tests.support.storage import S3, contents, copy_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

Free = Callable[..., None]

OPTIONS = ("--keep-fraction", "0.2", "--max-length", "128", "--unit-rows", "4")


@pytest.fixture(scope="module")
def undisturbed(
    ray_session: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a corpus of 120 rows in 3 shards, and `out`: 30 units by the free scorer."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_shards(folder / "corpus", make_rows(120))
    where = ["run", f"{folder}/corpus", f"{folder}/out", "--model", str(tiny_model)]
    assert main([*where, *OPTIONS], specs=free_scorer.specs()) == 0
    return folder


@pytest.fixture
def corpus(undisturbed: Path, tmp_path: Path) -> Path:
    return copy_of(undisturbed / "corpus", tmp_path / "corpus")


@pytest.fixture
def command(corpus: Path, tiny_model: Path, tmp_path: Path) -> list[object]:
    """The command line of the undisturbed run, over a copy of the corpus, into another `out`."""
    return ["run", corpus, tmp_path / "out", "--model", tiny_model, *OPTIONS]


def scores_of(out: Path) -> list[dict[str, Any]]:
    rows = ds.dataset(sorted((out / "scores").rglob("*.parquet"))).to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["shard"], row["row"]))


def poison(corpus: Path, places: dict[str, list[int]]) -> None:
    for name, rows in places.items():
        table = pq.read_table(corpus / name).to_pylist()
        for row in rows:
            table[row]["output"] = f"a little {POISON} in it"
        schema = pq.read_schema(corpus / name)
        pq.write_table(pa.Table.from_pylist(table, schema), corpus / name, row_group_size=16)


@contextmanager
def meanwhile(what: Callable[[], bool]) -> Iterator[None]:
    """Calls `what` in another thread, again and again, until it returns True."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(0.02) and not what():
            pass

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def kill_ray_process(title: str) -> bool:
    """Kills one worker process of this test's Ray whose title begins so; False if there is none."""
    for process in psutil.Process().children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(title):
                process.send_signal(signal.SIGKILL)
                return True
        except psutil.Error:
            continue
    return False


@pytest.mark.parametrize(
    "title",
    [
        "ray::MapWorker",
        pytest.param("ray::Read", marks=pytest.mark.release),
        pytest.param("ray::Write", marks=pytest.mark.release),
    ],
)
def test_a_killed_process_changes_nothing_and_no_committed_unit_is_scored_again(
    command: list[object],
    undisturbed: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Free,
    title: str,
) -> None:
    # Reading is so slow that on any machine it still runs when the first unit is scored.
    free_scorer(unit_s=0.1, read_s=0.2, log=str(tmp_path / "log"))
    kills: list[float] = []

    def kill() -> bool:
        if (tmp_path / "log").exists() and kill_ray_process(title):
            kills.append(time.time())
            time.sleep(1)
        return len(kills) == 2

    with meanwhile(kill):
        code, _, stderr = sf_ray_cli(*command)
    assert code == 0, stderr
    assert kills
    assert contents(tmp_path / "out", "*.parquet") == contents(undisturbed / "out", "*.parquet")
    committed = {
        (score["shard"], score["row"]): path.stat().st_mtime_ns
        for path in (tmp_path / "out/scores").rglob("*.parquet")
        for score in pq.read_table(path, columns=["shard", "row"]).slice(0, 1).to_pylist()
    }
    for line in (tmp_path / "log").read_text().splitlines():
        shard, row, when, _ = line.split()
        assert int(when) < committed[shard, int(row)]


@pytest.mark.release
def test_rows_that_the_engine_fails_on_are_found_and_the_others_are_scored(
    command: list[object], corpus: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    # A tokenizer with one token more than the model has rows for is a common accident.
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    model = make_model(tmp_path / "odd")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([AddedToken(POISON)])
    tokenizer.save_pretrained(model)
    command[command.index("--model") + 1] = model
    poison(corpus, {"train/00001.parquet": [5, 6]})
    code, stdout, stderr = sf_ray_cli(*command)
    assert code == 0, stderr
    assert "engine_error" in stdout
    scores = scores_of(tmp_path / "out")
    bad = {("train/00001.parquet", 5), ("train/00001.parquet", 6)}
    pairs = []
    for row, score in zip(make_rows(120), scores, strict=True):
        if (score["shard"], score["row"]) in bad:
            assert score["status"] == "engine_error"
            assert score["ifd"] is score["loss_direct"] is score["loss_conditioned"] is None
        elif row["id"] in ("row-7", "row-11", "row-13"):
            assert score["status"] == ("empty_answer" if row["id"] == "row-7" else "bad_row")
            assert score["ifd"] is None
        else:
            prompt = f"{row['instruction']}\n" + (f"{row['input']}\n" if row["input"] else "")
            pairs.append(((prompt, str(row["output"])), score))
    expected = Scorer(str(model), max_length=128).score([pair for pair, _ in pairs])
    for alone, (_, score) in zip(expected, pairs, strict=True):
        assert score["status"] == alone.status
        assert (score["ifd"] is None) == (alone.ifd is None)
        assert alone.ifd is None or score["ifd"] == pytest.approx(alone.ifd, rel=1e-5)


@pytest.mark.release
def test_rows_that_end_the_process_are_found_too(
    command: list[object], corpus: Path, tmp_path: Path, sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer(on_poison="die")
    poison(corpus, {"train/00001.parquet": [5]})
    command += ["--storage-retry-s", "5"]
    code, _, stderr = sf_ray_cli(*command)
    assert code == 0, stderr
    bad = [row for row in scores_of(tmp_path / "out") if row["status"] == "engine_error"]
    assert [(row["shard"], row["row"]) for row in bad] == [("train/00001.parquet", 5)]
    assert len(scores_of(tmp_path / "out")) == 120


@pytest.mark.release
def test_an_actor_that_dies_while_it_loads_ends_the_run(
    command: list[object], sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer(dies_at_start=True)
    code, _, stderr = sf_ray_cli(*command)
    assert code == 1
    assert "a scoring actor died 3 times while it loaded the model" in stderr.splitlines()[-1]


def test_a_cluster_without_room_for_an_actor_is_waited_for_only_so_long(
    command: list[object], sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer()
    code, _, stderr = sf_ray_cli(*command, "--cpus-per-actor", "64", "--stall-s", "1")
    assert code == 1
    assert "nothing has moved for 1 s" in stderr.splitlines()[-1]
    assert "look at `ray status`" in stderr.splitlines()[-1]


def break_a_page(path: Path, column: str, row_group: int) -> None:
    names = pq.read_schema(path).names
    place = pq.read_metadata(path).row_group(row_group).column(names.index(column))
    data = bytearray(path.read_bytes())
    start = place.dictionary_page_offset or place.data_page_offset
    data[start : start + 12] = b"\xff" * 12
    path.write_bytes(data)


# `output` is found broken while scoring, `id` only when the kept rows are written.
@pytest.mark.parametrize("column", [pytest.param("output", marks=pytest.mark.release), "id"])
def test_a_shard_with_a_corrupt_page_fails_the_run_or_is_left_out(
    command: list[object],
    undisturbed: Path,
    corpus: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Free,
    column: str,
) -> None:
    free_scorer()
    copy_of(undisturbed / "out/scores", tmp_path / "out/scores")
    shard = corpus / "train/00001.parquet"
    whole = shard.read_bytes()
    shard.unlink()
    assert sf_ray_cli(*command)[0] == 0
    without = contents(tmp_path / "out/data", "*.parquet")
    shard.write_bytes(whole)
    break_a_page(shard, column, row_group=1)

    code, _, stderr = sf_ray_cli(*command)
    assert code == 1
    assert "shard train/00001.parquet: cannot be read" in stderr.splitlines()[-1]
    assert "--on-bad-shard skip" in stderr.splitlines()[-1]

    for expected in ("note: skipping shard train/00001.parquet", "nothing to do"):
        code, stdout, stderr = sf_ray_cli(*command, "--on-bad-shard", "skip")
        assert code == 3, stderr
        assert expected in stderr
        assert "skipped  train/00001.parquet: cannot be read" in stdout, stdout
        assert contents(tmp_path / "out/data", "*.parquet") == without
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert manifest["input"]["rows"] == 80
        assert [s["path"] for s in manifest["input"]["skipped_shards"]] == ["train/00001.parquet"]

    # Mended, it counts again.
    shard.write_bytes(whole)
    assert sf_ray_cli(*command, "--on-bad-shard", "skip")[0] == 0


@pytest.mark.release
def test_a_shard_that_disappears_after_the_plan_fails_the_run_or_is_left_out(
    command: list[object],
    corpus: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Free,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free_scorer()
    shard = corpus / "extra/00000.parquet"
    data = shard.read_bytes()
    score = pipeline._score

    def late(*arguments: Any) -> Any:
        shard.unlink()
        return score(*arguments)

    monkeypatch.setattr(pipeline, "_score", late)
    code, _, stderr = sf_ray_cli(*command)
    assert code == 1
    assert "shard extra/00000.parquet: disappeared while the job ran" in stderr.splitlines()[-1]
    shard.write_bytes(data)
    code, stdout, stderr = sf_ray_cli(*command, "--on-bad-shard", "skip")
    assert code == 3, stderr
    assert "skipped  extra/00000.parquet: disappeared" in stdout
    assert not (tmp_path / "out/data/extra").exists() or not list(tmp_path.glob("out/data/extra/*"))


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.release
def test_a_corpus_of_rubbish_fails_with_what_is_wrong_in_it(
    tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli, no_collection: None
) -> None:
    sf_ray_cli.specs = Specs(engine=HashEngineSpec)
    # A stopped run must free its CPUs for the next one even if the garbage collector never runs.
    rows = make_rows(60)
    for row in rows[20:30]:
        row["output"] = None
    rows[3]["output"] = ""
    corpus = write_shards(tmp_path / "corpus", rows)
    command = ["run", corpus, tmp_path / "out", "--model", tiny_model, "--keep-count", "5"]
    code, _, stderr = sf_ray_cli(*command, "--max-length", "128")
    assert code == 1
    last = stderr.splitlines()[-1]
    assert "more than 5.0% of 60 rows cannot be used" in last
    assert "'output' is null" in last
    assert "--max-bad-fraction" in last
    assert not (tmp_path / "out/manifest.json").exists()
    # `select` refuses the same scores, until more is allowed.
    finish = (*command, "--max-length", "128", "--max-bad-fraction", "1")
    assert sf_ray_cli(*finish)[0] == 0
    select = ("select", corpus, tmp_path / "out/scores", tmp_path / "o", "--keep-count", "5")
    code, _, stderr = sf_ray_cli(*select)
    assert code == 1
    assert (
        "12 bad_row, 2 empty_answer, e.g. row 3 of extra/00000.parquet: the answer is empty"
        in (stderr.splitlines()[-1])
    )
    assert sf_ray_cli(*select, "--max-bad-fraction", "0.3")[0] == 0


def test_a_second_run_is_refused_before_it_does_anything(
    command: list[object], tmp_path: Path, sf_ray_cli: Cli
) -> None:
    with lease(Location(str(tmp_path / "out"))):
        code, _, stderr = sf_ray_cli(*command)
    assert code == 1
    assert f"another run writes there: process {os.getpid()}" in stderr
    assert "plan" not in stderr
    assert not (tmp_path / "out/scores").exists()


@pytest.mark.release
def test_a_bucket_behind_a_bad_network_gives_the_same_result_and_a_second_run_reads_no_footer(
    command: list[object],
    undisturbed: Path,
    corpus: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Free,
    s3: S3,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free_scorer()
    fs = Location(s3.bucket, s3.options).fs
    fs.put(f"{corpus}/", f"{s3.bucket}/corpus/", recursive=True)
    proxy = Proxy(
        str(s3.options["endpoint_url"]),
        {"reset": 0.03, "busy": 0.03, "half": 0.03, "lost": 0.02, "slow": 0.02},
    )
    options = json.dumps(s3.options | {"endpoint_url": proxy.endpoint})
    command[1:3] = [f"{s3.bucket}/corpus", f"{s3.bucket}/out"]
    # An attempt in which nothing moves starts again before the test as a whole counts as hung.
    given = ("--storage-options", options, "--stall-s", 90)
    code, _, stderr = sf_ray_cli(*command, *given)
    proxy.close()
    assert code == 0, stderr
    assert proxy.broken.total() > 5
    fs.get(f"{s3.bucket}/out/data/", str(tmp_path / "fetched") + "/", recursive=True)
    assert contents(tmp_path / "fetched", "*.parquet") == contents(
        undisturbed / "out/data", "*.parquet"
    )

    # A second run plans by the footers that the first one kept, and starts no actor.
    proxy = Proxy(str(s3.options["endpoint_url"]))
    options = json.dumps(s3.options | {"endpoint_url": proxy.endpoint})
    monkeypatch.setattr("sf_ray.scoring.run.ScoringProgress", None)
    code, _, stderr = sf_ray_cli(*command, "--storage-options", options, "--stall-s", 90)
    proxy.close()
    assert code == 0, stderr
    assert "nothing to do" in stderr
    corpus_path = f"/{s3.bucket.removeprefix('s3://')}/corpus/"
    read = [path for _, path in proxy.requests if path.startswith(corpus_path)]
    assert not read, proxy.requests
    # Listings, the kept footers, identity, manifest and leases; not more for more shards.
    assert 0 < proxy.requests.total() < 40
