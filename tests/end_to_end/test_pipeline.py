"""The whole job on a real Ray, with a tiny model."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bench.support import free_scorer
from bench.support.corpora import make_rows, write_shards
from sf_ray.cli import main
from sf_ray.commands.setup import Specs
from sf_ray.storage.lease.lease import lease
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.hash_scorer import HashEngineSpec
from tests.support.naive import naive_score
from tests.support.storage import S3, contents, copy_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

Free = Callable[..., None]
OPTIONS = ("--max-length", "128", "--unit-rows", "16")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of the Parquet files of a folder, in the order of their relative names."""
    paths = sorted(folder.rglob("*.parquet"), key=lambda p: p.relative_to(folder).as_posix())
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def read_scores(scores: Path) -> list[dict[str, Any]]:
    rows = ds.dataset(sorted(scores.rglob("*.parquet"))).to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["shard"], row["row"]))


def best(scores: list[dict[str, Any]], count: int) -> set[tuple[str, int]]:
    good = [s for s in scores if s["status"] == "ok" and s["ifd"] < 1]
    good.sort(key=lambda s: (-s["ifd"], s["shard"], s["row"]))
    return {(s["shard"], s["row"]) for s in good[:count]}


@pytest.fixture(scope="module")
def scored(ray_session: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus of 120 rows, and `scores` of it by the scorer that costs nothing."""
    folder = tmp_path_factory.mktemp("scored")
    write_shards(folder / "corpus", make_rows(120))
    command = ["score", f"{folder}/corpus", f"{folder}/scores", "--model", str(tiny_model)]
    assert main([*command, *OPTIONS], specs=free_scorer.specs()) == 0
    return folder


@pytest.fixture(scope="module")
def kept(
    ray_session: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A folder with the corpus and what the model keeps of it, `out`; and what was printed."""
    folder = tmp_path_factory.mktemp("kept")
    write_shards(folder / "corpus", make_rows(120))
    command = ["run", f"{folder}/corpus", f"{folder}/out", "--model", str(tiny_model)]
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        assert main([*command, "--keep-fraction", "0.2", *OPTIONS]) == 0
    return folder, stdout.getvalue()


def test_the_best_rows_are_kept_as_they_were(kept: tuple[Path, str], tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, stdout = kept
    corpus, out = folder / "corpus", folder / "out"
    # Every input row has one score row, and the scores are those of the definition.
    scores = read_scores(out / "scores")
    rows = read_rows(corpus)
    assert len(scores) == len(rows) == 120
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    expected_status = {"row-7": "empty_answer", "row-11": "bad_row", "row-13": "bad_row"}
    for row, score in zip(rows, scores, strict=True):
        assert score["status"] == expected_status.get(row["id"], "ok")
        if score["status"] == "ok":
            prompt = row["instruction"] + "\n" + (row["input"] + "\n" if row["input"] else "")
            naive = naive_score(model, tokenizer, prompt, row["output"], 128)
            assert score["ifd"] == pytest.approx(naive.ifd, rel=1e-4)
        else:
            assert score["ifd"] is None
            assert score["ppl_direct"] is None

    # What was kept is what sorting by hand keeps: same rows, types and order, plus their IFD.
    wanted = best(scores, 24)
    place = {(s["shard"], s["row"]): row for s, row in zip(scores, rows, strict=True)}
    ifd = {(s["shard"], s["row"]): s["ifd"] for s in scores}
    assert read_rows(out / "data") == [place[key] | {"ifd": ifd[key]} for key in sorted(wanted)]
    for path in corpus.rglob("*.parquet"):
        written = pq.read_schema(out / "data" / path.relative_to(corpus))
        assert written.remove(written.get_field_index("ifd")).equals(pq.read_schema(path))

    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["selection"]["kept_rows"] == 24
    assert manifest["status_counts"]["bad_row"] == 2
    assert sum(manifest["status_counts"].values()) == manifest["input"]["rows"] == 120
    last = min(wanted, key=lambda key: (ifd[key], [-ord(c) for c in key[0]], -key[1]))
    cutoff = manifest["selection"]["cutoff"]
    assert (cutoff["shard"], cutoff["row"], cutoff["ifd"]) == (*last, ifd[last])
    assert manifest["scores"]["units"] == {"total": 9, "scored": 9, "reused": 0}
    tokens = manifest["scores"]["tokens"]
    assert tokens["scored"] > tokens["saved"] >= 0
    assert "kept" in stdout
    assert "empty_answer" in stdout


def test_the_same_command_twice_does_nothing_the_second_time(
    corpus: Path, tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer()
    out = tmp_path / "out"
    command = ("run", corpus, out, "--model", tiny_model, "--keep-count", "5", *OPTIONS)
    assert sf_ray_cli(*command)[0] == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    code, stdout, stderr = sf_ray_cli(*command)
    assert code == 0
    assert "nothing to do" in stderr
    assert "kept" in stdout
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before


def test_scores_serve_many_selections_and_a_selection_replaces_its_own_output(
    scored: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    corpus, scores, out = scored / "corpus", scored / "scores", tmp_path / "out"
    table = read_scores(scores)
    for count in (40, 7):
        code, _, stderr = sf_ray_cli("select", corpus, scores, out, "--keep-count", count)
        assert code == 0, stderr
        assert len(read_rows(out / "data")) == len(best(table, count)) == count
    bounds = ("--min-ifd", "0.3", "--max-ifd", "0.8")
    code, stdout, _ = sf_ray_cli("select", corpus, scores, out, "--keep-fraction", "1", *bounds)
    assert code == 0
    expected = [s["ifd"] for s in table if s["ifd"] is not None and 0.3 <= s["ifd"] < 0.8]
    assert [row["ifd"] for row in read_rows(out / "data")] == expected
    assert "no more have an IFD from 0.3 to 0.8" in " ".join(stdout.split())


def test_whole_scores_are_selected_from_while_another_run_holds_them(
    scored: Path, tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer()
    scores = copy_of(scored / "scores", tmp_path / "scores")
    (pieces,) = (path.parent for path in scores.rglob("identity.json"))
    command = ("run", scored / "corpus", tmp_path / "out", "--scores", scores)
    command += ("--model", tiny_model, "--keep-count", "10", *OPTIONS)
    with lease(Location(str(pieces))):
        code, _, stderr = sf_ray_cli(*command)
        assert code == 0, stderr
        assert "9 units, 9 have scores, 0 to score" in stderr
        next(pieces.rglob("*.parquet")).unlink()
        code, _, stderr = sf_ray_cli(*command, "--min-ifd", "0.1")
        assert code == 1
        assert "another run writes there" in stderr


@pytest.mark.release
def test_changed_and_removed_shards_never_meet_old_scores(
    scored: Path, tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer()
    corpus = copy_of(scored / "corpus", tmp_path / "corpus")
    out = tmp_path / "out"
    copy_of(scored / "scores", out / "scores")
    command = ("run", corpus, out, "--model", tiny_model, "--keep-count", "10", *OPTIONS)
    assert sf_ray_cli(*command)[0] == 0
    write_shards(tmp_path / "other", make_rows(120, seed=9))
    shutil.copy(tmp_path / "other/train/00001.parquet", corpus / "train/00001.parquet")
    (corpus / "extra/00000.parquet").unlink()
    code, _, stderr = sf_ray_cli(*command)
    assert code == 0
    assert "6 units, 3 have scores, 3 to score" in stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["scores"]["units"] == {"total": 6, "scored": 3, "reused": 3}
    fresh = tmp_path / "fresh"
    fresh_run = ("run", corpus, fresh, "--model", tiny_model, "--keep-count", "10", *OPTIONS)
    assert sf_ray_cli(*fresh_run)[0] == 0
    assert contents(out / "data") == contents(fresh / "data")


@pytest.mark.release
def test_scores_of_two_options_lie_apart_and_one_must_be_chosen(
    scored: Path,
    tiny_bos_model: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Free,
) -> None:
    free_scorer()
    corpus, scores = scored / "corpus", copy_of(scored / "scores", tmp_path / "scores")
    assert sf_ray_cli("score", corpus, scores, "--model", tiny_bos_model, *OPTIONS)[0] == 0
    select = ("select", corpus, scores, tmp_path / "out", "--keep-count", "5")
    code, _, stderr = sf_ray_cli(*select)
    assert code == 1
    assert "holds several score sets; choose one with --scoring-id" in stderr
    identities = sorted(path.parent.name for path in scores.glob("*/identity.json"))
    assert len(identities) == 2
    assert all(name in stderr for name in identities)
    for name in identities:
        assert sf_ray_cli(*select, "--scoring-id", name)[0] == 0
        kept = {row["id"] for row in read_rows(tmp_path / "out/data")}
        table = read_scores(scores / name)
        rows = read_rows(corpus)
        expected = best(table, 5)
        assert kept == {
            row["id"]
            for row, s in zip(rows, table, strict=True)
            if (s["shard"], s["row"]) in expected
        }


def test_selecting_from_unfinished_scores_is_refused(
    scored: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    corpus, scores = scored / "corpus", tmp_path / "scores"
    code, _, stderr = sf_ray_cli("select", corpus, scores, tmp_path / "o", "--keep-count", "5")
    assert (code, "no scores there" in stderr) == (1, True)
    copy_of(scored / "scores", scores)
    next(scores.rglob("*.parquet")).unlink()
    code, _, stderr = sf_ray_cli("select", corpus, scores, tmp_path / "o", "--keep-count", "5")
    assert code == 1
    assert "1 of 9 units" in stderr
    assert "`sf-ray score` first" in stderr


def test_a_broken_score_piece_is_named(scored: Path, tmp_path: Path, sf_ray_cli: Cli) -> None:
    corpus, scores = scored / "corpus", copy_of(scored / "scores", tmp_path / "scores")
    piece = next(scores.rglob("*.parquet"))
    piece.write_bytes(b"rubbish")
    code, _, stderr = sf_ray_cli("select", corpus, scores, tmp_path / "o", "--keep-count", "5")
    assert code == 1
    assert piece.name in stderr
    assert "delete it and score again" in stderr
    assert "Traceback" not in stderr, stderr


@pytest.mark.release
def test_awkward_corpora_go_through(tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli) -> None:
    sf_ray_cli.specs = Specs(engine=HashEngineSpec)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    schema = pa.schema(
        [("question", pa.dictionary(pa.int32(), pa.string())), ("answer", pa.large_string())]
        + [("meta", pa.struct([("tags", pa.list_(pa.string()))]))]
    )
    rows = [
        {"question": f"what is {i % 3}", "answer": f"it is {i} of all", "meta": {"tags": ["a"]}}
        for i in range(20)
    ]
    for name, part in (("empty", []), ("one", rows[:1]), ("same", [rows[0]] * 9), ("many", rows)):
        pq.write_table(pa.Table.from_pylist(part, schema=schema), corpus / f"{name}.parquet")
    mapped = ("--columns", "prompt=question,completion=answer", "--ifd-column", "score", *OPTIONS)
    code, _, stderr = sf_ray_cli(
        "run", corpus, tmp_path / "out", "--model", tiny_model, "--keep-fraction", "0.5", *mapped
    )
    assert code == 0, stderr
    assert "format prompt-completion" in stderr
    kept = read_rows(tmp_path / "out/data")
    assert len(kept) <= 15
    output = json.loads((tmp_path / "out/manifest.json").read_text())["output"]
    written = {shard["path"] for shard in output["shards"]}
    assert {path.name for path in (tmp_path / "out/data").iterdir()} == written
    assert "empty.parquet" in output["empty_shards"]
    assert len(written) + len(output["empty_shards"]) == 4
    for path in (tmp_path / "out/data").iterdir():
        assert pq.read_schema(path).names == ["question", "answer", "meta", "score"]
        assert pq.read_schema(path).field("question").type == schema.field("question").type
    # Equal rows have equal scores, and ties go to the first.
    same = [r["ifd"] for r in read_scores(tmp_path / "out/scores") if r["shard"] == "same.parquet"]
    assert len(set(same)) == 1


@pytest.mark.release
def test_nothing_to_keep_is_a_result_too(
    tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli, free_scorer: Free
) -> None:
    free_scorer()
    corpus = write_shards(tmp_path / "corpus", make_rows(6), shards=1)
    command = ("run", corpus, tmp_path / "out", "--model", tiny_model, "--max-length", "128")
    code, stdout, _ = sf_ray_cli(*command, "--keep-fraction", "0.1")
    assert code == 0
    assert "nothing is kept" in stdout
    assert read_rows(tmp_path / "out/data") == []


def test_a_corpus_of_empty_shards_is_a_result_too(
    tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    sf_ray_cli.specs = Specs(engine=HashEngineSpec)
    corpus = write_shards(tmp_path / "corpus", [], shards=2)
    command = ("run", corpus, tmp_path / "out", "--model", tiny_model, "--max-length", "128")
    code, _, stderr = sf_ray_cli(*command, "--keep-fraction", "0.1")
    assert code == 0, stderr
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["input"]["rows"] == 0
    assert len(manifest["output"]["empty_shards"]) == 2
    assert not list((tmp_path / "out/data").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("{corpus}", "{corpus}/out", "--keep-count", "5"), 2, "lie inside each other"),
        (("{corpus}/extra", "{corpus}", "--keep-count", "5"), 2, "lie inside each other"),
        (("{empty}", "{out}", "--keep-count", "5"), 1, "no shards found"),
        (("{corpus}", "{out}", "--keep-count", "5", "--scores", "{out}/data"), 2, "only filtered"),
        (("{corpus}", "{out}", "--keep-count", "5", "--max-length", "999"), 2, "window of"),
        (
            ("{corpus}", "{out}", "--keep-count", "5", "--ifd-column", "id"),
            2,
            "column 'id' already",
        ),
        (("{corpus}", "{out}", "--keep-count", "5", "--format", "prompt-completion"), 1, "not fit"),
    ],
)
def test_what_can_be_known_before_is_said_before(
    corpus: Path,
    tiny_model: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"corpus": corpus, "empty": tmp_path / "empty", "out": tmp_path / "out"}
    filled = [argument.format(**places) for argument in arguments]
    got, _, stderr = sf_ray_cli("run", *filled, "--model", tiny_model)
    assert got == code
    assert words in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.release
def test_an_error_in_an_actor_is_the_error_of_the_run(
    corpus: Path, tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    command = ("run", corpus, tmp_path / "out", "--model", broken, "--keep-count", "5", *OPTIONS)
    code, _, stderr = sf_ray_cli(*command)
    assert code == 1
    assert f"model {broken}: cannot be loaded" in stderr.splitlines()[-1]


def test_reading_and_scoring_stay_apart_whatever_ray_would_fuse(tiny_model: Path) -> None:
    from ray.data._internal.logical.optimizers import get_execution_plan

    from sf_ray.corpus.formats import resolve_format
    from sf_ray.corpus.units import ReadPlan, Unit
    from sf_ray.encoding.specs import EncodingSpec, ModelSpec
    from sf_ray.engine.model_files import resolve_model
    from sf_ray.runtime.actor_pool import ActorPool
    from sf_ray.scoring.engine_spec import EngineSpec
    from sf_ray.scoring.run import scoring_dataset
    from sf_ray.scoring.stages.source import ScoringJob
    from sf_ray.storage.listing import File
    from sf_ray.storage.location import Location

    model = resolve_model(str(tiny_model))
    spec = ModelSpec(str(tiny_model), model.fingerprint)
    plan = ReadPlan(File("x", "x", 1, "1"), "x", (Unit(0, 1),), range(1), 0)
    pieces = Location("y")
    job = ScoringJob(Location("x"), pieces, [[plan]] * 3, 1, False, False)
    for cpus in (0.3, 0.55, 1, 2):  # a task that reads takes 0.3
        scored = scoring_dataset(
            job,
            pieces,
            EncodingSpec(resolve_format(["prompt", "completion"]), spec, 64, "reference"),
            EngineSpec(spec, "cpu", "float32", threads=1),
            ActorPool(1, 1, 1, cpus, 0, 0.3, 0.15, threads=1),
            None,
        )
        physical = get_execution_plan(scored._logical_plan)
        physical = physical[0] if isinstance(physical, tuple) else physical
        names, operator = [], physical.dag
        while operator is not None:
            names.append(operator.name)
            below = operator.input_dependencies
            operator = below[0] if below else None
        assert names[:2] == ["MapBatches(ScoreUnits)", "ReadUnits"], names


@pytest.mark.release
@pytest.mark.s3
def test_a_bucket_gives_the_files_that_a_disk_gives(
    kept: tuple[Path, str], tiny_model: Path, tmp_path: Path, s3: S3, sf_ray_cli: Cli
) -> None:
    import s3fs

    corpus, out = kept[0] / "corpus", kept[0] / "out"
    fs = s3fs.S3FileSystem(**s3.options)
    fs.put(f"{corpus}/", f"{s3.bucket}/corpus/", recursive=True)
    fs.put(f"{tiny_model}/", f"{s3.bucket}/model/", recursive=True)
    place = ("--storage-options", s3.options_json)
    code, _, stderr = sf_ray_cli(
        "run", f"{s3.bucket}/corpus", f"{s3.bucket}/out", "--model", f"{s3.bucket}/model",
        "--keep-fraction", "0.2", *OPTIONS, *place,
    )  # fmt: skip
    assert code == 0, stderr
    fs.invalidate_cache()
    fs.get(f"{s3.bucket}/out/", str(tmp_path / "fetched") + "/", recursive=True)
    assert contents(tmp_path / "fetched/data") == contents(out / "data")
    assert read_scores(tmp_path / "fetched/scores") == read_scores(out / "scores")
    # Credentials appear nowhere.
    written = b"".join(
        value for name, value in contents(tmp_path / "fetched").items() if name.endswith(".json")
    )
    secret = str(s3.options["secret"])
    assert f'"{secret}"' not in written.decode()
    assert str(s3.options["endpoint_url"]) not in written.decode()

    code, _, stderr = sf_ray_cli(
        "run", f"{s3.bucket}/corpus", f"{s3.bucket}/out", "--model", f"{s3.bucket}/model",
        "--keep-fraction", "0.2", *OPTIONS, *place,
    )  # fmt: skip
    assert "nothing to do" in stderr
