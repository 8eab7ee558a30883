"""A study on a real Ray, from scores to a verdict, with a model that is small enough to train."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from bench.support import free_scorer
from bench.support.corpora import make_rows
from sf_ray.cli import main
from tests.support.cli import Cli

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def scored(ray_session: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 160 rows, of which every tenth is a copy, and their scores."""
    folder = tmp_path_factory.mktemp("study")
    rows = [row for row in make_rows(200) if row["instruction"] and row["output"]][:160]
    for at in range(9, 160, 10):
        rows[at] = rows[at - 9] | {"id": rows[at]["id"]}
    for at, row in enumerate(rows):
        row["source"] = "ab"[at % 4 == 0]
    (folder / "corpus").mkdir()
    for shard in range(3):
        part = pa.Table.from_pylist(rows[shard * 60 : shard * 60 + 60])
        pq.write_table(part, folder / f"corpus/{shard:05d}.parquet")
    command = ["score", f"{folder}/corpus", f"{folder}/scores", "--model", str(tiny_model)]
    command += ["--unit-rows", "40", "--max-length", "64", "--device", "cpu"]
    assert main(command, free_scorer.specs(free_scorer.Settings(digests=True))) == 0
    return folder


def plan_of(scored: Path, study: Path, *more: object) -> list[object]:
    places = ["study", "plan", scored / "corpus", scored / "scores", study]
    return [*places, "--keep-fraction", "0.2", "--held-out", "0.1", *more]


def texts(folder: Path) -> list[tuple[str, str]]:
    table = ds.dataset(folder, format="parquet").to_table()
    return list(zip(table["instruction"].to_pylist(), table["output"].to_pylist(), strict=True))


def record(study: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((study / "study.json").read_text())
    return found


def test_a_study_from_its_plan_to_a_verdict(
    scored: Path, tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    study = tmp_path / "study"
    command = plan_of(
        scored, study, "--report-by", "source", "--student", tiny_model, "--train",
        "--arms", "ifd,random", "--seeds", "1", "--epochs", "1", "--batch-tokens", "400",
        "--learning-rate", "0.001",
    )  # fmt: skip
    code, stdout, stderr = sf_ray_cli(*command)
    assert code == 0, stderr
    plan = record(study)
    assert [run["name"] for run in plan["runs"]] == ["ifd-0", "random-0"]

    held_out = set(texts(study / "held-out/data"))
    assert plan["held_out_rows"] == 16
    sources = ds.dataset(study / "held-out/data", format="parquet").to_table()["source"]
    assert sorted(sources.to_pylist()) == ["a"] * 12 + ["b"] * 4
    tokens = {}
    pieces = ds.dataset(sorted((scored / "scores").rglob("*.parquet"))).to_table().to_pylist()
    corpus = {
        (path.name, row): text
        for path in sorted((scored / "corpus").iterdir())
        for row, text in enumerate(texts(path))
    }
    for piece in pieces:
        size = piece["prompt_tokens"] + piece["answer_tokens"]
        tokens[corpus[Path(piece["shard"]).name, piece["row"]]] = size
    for run in plan["runs"]:
        arm = texts(study / run["data"] / "data")
        assert len(arm) == run["rows"]
        assert not held_out & set(arm), "copies of held-out rows are in no arm"
        # The last row is the one that reaches the budget.
        sizes = [tokens[text] for text in arm]
        assert plan["token_budget"] <= sum(sizes) < plan["token_budget"] + max(sizes)

    outcome = json.loads((study / "report.json").read_text())
    assert set(outcome["means"]) == {"ifd", "random", "untrained"}
    assert max(outcome["means"]["ifd"]) < outcome["means"]["untrained"][0]
    (contrast,) = outcome["contrasts"]
    assert contrast["verdict"] == "no verdict", "of one model of ifd"
    assert contrast["p"] is None
    means = {arm: sum(of) / len(of) for arm, of in outcome["means"].items()}
    assert contrast["difference"] == pytest.approx(means["ifd"] - means["random"])
    assert "ifd - random" in stdout
    assert contrast["verdict"] in stdout
    page = (study / "report.html").read_text()
    assert f"<b>{contrast['verdict']}</b>" in page
    assert not list((study / "models").rglob("*.safetensors"))

    # Everything is there: the same command trains nothing, and says the same.
    code, _, stderr = sf_ray_cli(*command)
    assert code == 0, stderr
    assert "every run has its held-out losses" in stderr
    assert json.loads((study / "report.json").read_text()) == outcome

    # What one arm has seen cannot judge it.
    spoilt = next((study / "arms/ifd/data").rglob("*.parquet"))
    (held,) = list((study / "held-out/data").rglob("*.parquet"))[:1]
    pq.write_table(pq.read_table(held), spoilt)
    code, _, stderr = sf_ray_cli(
        "study", "report", study, "--models", f"ifd={tiny_model}", "--ray-address", "auto"
    )
    assert code == 1
    assert "rows are held out, or copies of held-out rows" in stderr
    assert f"{spoilt.relative_to(study / 'arms/ifd/data')} row 0" in stderr


@pytest.mark.release
def test_models_that_were_trained_elsewhere_are_compared(
    scored: Path, tiny_model: Path, tiny_bos_model: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    study = tmp_path / "study"
    code, stdout, stderr = sf_ray_cli(
        *plan_of(scored, study, "--arms", "ifd:1,random:1,longest:1,all", "--seeds", "1")
    )
    assert code == 0, stderr
    assert "longest-0" in stdout
    runs = {run["name"]: run for run in record(study)["runs"]}
    assert runs["all-0"]["rows"] > runs["ifd-0"]["rows"]
    trainers = study / "trainers"
    config = yaml.safe_load((trainers / "llama-factory/random-0.yaml").read_text())
    assert Path(config["dataset_dir"], "dataset_info.json").exists()
    compile((trainers / "train_trl.py").read_text(), "train_trl.py", "exec")

    code, _, stderr = sf_ray_cli("study", "report", study)
    assert code == 1
    assert "no model has scored the held-out rows yet" in stderr
    code, _, stderr = sf_ray_cli("study", "report", study, "--models", f"best={tiny_model}")
    assert code == 2
    assert "has no run 'best'; its runs are ifd-0, random-0" in stderr
    code, _, stderr = sf_ray_cli("study", "train", study)
    assert code == 2
    assert "plan it again with --student" in stderr

    models = f"ifd={tiny_model},random-0={tiny_bos_model}"
    code, stdout, stderr = sf_ray_cli("study", "report", study, "--models", models)
    assert code == 0, stderr
    assert "no verdict" in stdout
    # The other tokenizer begins each text with a token of its own.
    assert "losses are per byte of the answer" in stderr
    outcome = json.loads((study / "report.json").read_text())
    assert outcome["unit"] == "byte"
    losses = {}
    for place in filter(Path.is_dir, (study / "scores").iterdir()):
        identity = json.loads((place / "identity.json").read_text())
        pieces = ds.dataset(sorted(place.glob("*.parquet"))).to_table().to_pylist()
        pieces.sort(key=lambda piece: (piece["shard"], piece["row"]))
        losses[Path(identity["model_name"])] = pieces
    answers = [answer for _, answer in texts(study / "held-out/data")]
    whole = [not any(of[row]["truncated"] for of in losses.values()) for row in range(16)]
    for arm, model in (("ifd", tiny_model), ("random", tiny_bos_model)):
        a_byte = [
            piece["loss_conditioned"] * piece["answer_tokens"] / len(answer.encode())
            for piece, answer, counts in zip(losses[model], answers, whole, strict=True)
            if counts
        ]
        assert outcome["means"][arm] == [pytest.approx(sum(a_byte) / len(a_byte))]
    assert "one model of ifd, random" in stderr
    assert "without a model yet: longest-0, all-0" in stderr
    shutil.rmtree(study / "scores")
    code, _, stderr = sf_ray_cli("study", "report", study)
    assert code == 1
    assert "no scores there" in stderr


def test_arms_that_come_out_nearly_equal_are_named_before_anybody_trains(
    scored: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    command = plan_of(scored, tmp_path / "study", "--arms", "ifd,random:2", "--seeds", "2")
    command[command.index("0.2")] = "0.95"
    code, stdout, stderr = sf_ray_cli(*command)
    assert code == 0, stderr
    plan = record(tmp_path / "study")
    # Two draws of random rows; the best rows are the same for each seed.
    assert [(run["name"], run["data"]) for run in plan["runs"]] == [
        ("ifd-0", "arms/ifd"), ("random-0", "arms/random-0"),
        ("ifd-1", "arms/ifd"), ("random-1", "arms/random-1"),
    ]  # fmt: skip
    (pair,) = plan["overlaps"]
    assert pair["share"] > 0.9
    assert f"note: ifd-0 and random-0 share {pair['share']:.0%} of their examples" in stdout
    for wrong, said in (
        (("--held-out", "0.001"), "comes to no row"),
        (("--arms", "random,longest"), "--arms needs ifd"),
        (("--arms", "ifd,ifd"), "names ifd twice"),
        (("--train",), "--train needs --student"),
    ):
        code, _, stderr = sf_ray_cli(*command, *wrong)
        assert code == 2, wrong
        assert said in stderr


@pytest.mark.release
def test_arms_have_neither_near_copies_nor_rows_of_evaluation_sets(
    scored: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    rows = [text for path in sorted((scored / "corpus").iterdir()) for text in texts(path)]
    long = next(output for _, output in rows if len(output.split()) > 13)
    (tmp_path / "eval.jsonl").write_text(json.dumps({"prompt": "?", "completion": long}) + "\n")
    command = plan_of(
        scored, tmp_path / "study", "--arms", "ifd,all", "--seeds", "1",
        "--drop-near-duplicates", "0.9", "--near-duplicates-by", "text",
        "--drop-overlap-with", tmp_path / "eval.jsonl",
    )  # fmt: skip
    code, _, stderr = sf_ray_cli(*command)
    assert code == 0, stderr
    plan = record(tmp_path / "study")
    assert "--drop-near-duplicates 0.9 --near-duplicates-by text" in plan["command"]
    for run in plan["runs"]:
        arm = texts(tmp_path / "study" / run["data"] / "data")
        assert len(set(arm)) == len(arm), "copies are near copies"
        assert long not in [output for _, output in arm]
    assert len(set(rows)) > len(arm) > 100
