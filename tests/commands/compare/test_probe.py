import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.support.corpora import make_rows, write_shards
from bench.support.models import make_model
from sf_ray.commands.compare.probe_sample import read_segments
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.sampling import Segment, spread_segments
from sf_ray.errors import BadRowError, BadShardError, SfRayError
from sf_ray.scoring.bad_rows import check_bad_rows
from sf_ray.storage.location import Location
from tests.support.cli import Cli

OPTIONS = ("--max-length", "128", "--unit-rows", "24")


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.integers(1, 200),
    st.integers(0, 3),
    st.integers(1, 9),
)
def test_stretches_are_in_order_and_as_many_rows_as_wanted(
    shard_rows: list[int], wanted: int, seed: int, most: int
) -> None:
    found = spread_segments(shard_rows, wanted, seed, most)
    assert found == spread_segments(shard_rows, wanted, seed, most)
    rows = [(shard, row) for shard, unit in found for row in range(unit.start, unit.stop)]
    assert rows == sorted(set(rows))
    assert len(rows) == min(wanted, sum(shard_rows))
    assert all(0 <= row < shard_rows[shard] for shard, row in rows)
    assert all(unit.rows for _, unit in found)


def test_stretches_are_spread_over_the_corpus_and_differ_by_seed() -> None:
    rows = [10_000] * 8
    found = spread_segments(rows, 1000, 0)
    assert {shard for shard, _ in found} == set(range(8))
    starts = np.array([shard * 10_000 + unit.start for shard, unit in found])
    assert np.diff(starts).max() < 2 * 80_000 / len(found)
    assert found != spread_segments(rows, 1000, 1)


def test_the_sample_is_read_as_it_stands_in_the_corpus(corpus: Path) -> None:
    plan = plan_corpus(Location(str(corpus)))
    stretches = read_segments(plan, ["id"], 50, 0, skip_bad=False, skip_bad_lines=False)
    assert sum(stretch.rows.num_rows for stretch in stretches) == 50
    for stretch in stretches:
        whole = pq.read_table(corpus / stretch.shard.file.relative)["id"]
        part = whole[stretch.unit.start : stretch.unit.stop]
        assert stretch.rows["id"].to_pylist() == part.to_pylist()


def test_a_shard_that_cannot_be_read_fails_the_sample_or_is_passed_over(corpus: Path) -> None:
    plan = plan_corpus(Location(str(corpus)))
    (corpus / "extra" / "00000.parquet").unlink()
    with pytest.raises(BadShardError, match=r"extra/00000\.parquet"):
        read_segments(plan, ["id"], 50, 0, skip_bad=False, skip_bad_lines=False)
    stretches = read_segments(plan, ["id"], 50, 0, skip_bad=True, skip_bad_lines=False)
    assert {stretch.shard.file.relative for stretch in stretches} == {
        "train/00001.parquet",
        "train/00002.parquet",
    }
    for path in corpus.rglob("*.parquet"):
        path.unlink()
    with pytest.raises(SfRayError, match="not one row of the sample can be read"):
        read_segments(plan, ["id"], 50, 0, skip_bad=True, skip_bad_lines=False)


def test_a_broken_line_fails_the_sample_or_is_a_row_of_it(tmp_path: Path) -> None:
    lines = [json.dumps({"instruction": "a", "output": "b"})] * 5
    (tmp_path / "x.jsonl").write_text("\n".join([*lines, "{no", *lines]), encoding="utf-8")
    plan = plan_corpus(Location(str(tmp_path)))
    with pytest.raises(BadRowError, match="line 6"):
        read_segments(plan, ["output"], 11, 0, skip_bad=False, skip_bad_lines=False)
    stretches = read_segments(plan, ["output"], 11, 0, skip_bad=False, skip_bad_lines=True)
    assert sum(stretch.rows.num_rows for stretch in stretches) == 11


def test_too_many_bad_rows_are_refused_and_one_is_named(corpus: Path) -> None:
    plan = plan_corpus(Location(str(corpus)))
    shard, other = plan.shards[:2]
    (_, unit), (_, last) = spread_segments([5, 5], 10, 0, 2)
    stretches = [Segment(shard, unit, pa.table({})), Segment(other, last, pa.table({}))]
    status = ["ok"] * 7 + ["bad_row", "ok", "empty_answer"]
    scores = pa.table({"shard": [""] * 10, "row": range(10), "status": status})
    check_bad_rows(stretches, scores, 0.2)
    with pytest.raises(
        SfRayError,
        match=r"more than 10\.0% of 10 sampled rows .*1 bad_row, 1 empty_answer, "
        rf"e\.g\. row 2 of {other.file.relative}",
    ):
        check_bad_rows(stretches, scores, 0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "demo"), "--models: value should have at least 2 items"),
        (("--models", "a,b,a"), "--models names a twice"),
        (("--models", "a,b", "--sample", "10", "--keep-fraction", "0.05"), "less than one row"),
        (("--models", "a,b", "--scores", "{corpus}/scores"), "lie inside each other"),
        (("--models", "/no/such/model,/nor/this"), "model /no/such/model: no such directory"),
    ],
)
def test_what_cannot_be_probed_is_told_before_anything_starts(
    arguments: tuple[str, ...], words: str, corpus: Path, sf_ray_cli: Cli
) -> None:
    filled = [argument.format(corpus=corpus) for argument in arguments]
    code, _, err = sf_ray_cli("probe", corpus, *filled)
    assert code in (1, 2)
    assert words in err
    assert "Traceback" not in err


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_models_are_held_against_the_last_one(
    tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_shards(tmp_path / "corpus", make_rows(120))
    other = make_model(tmp_path / "other", seed=1)
    scores, temporary = tmp_path / "kept", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    models = ("--models", f"{other},{tiny_model}")
    code, out, err = sf_ray_cli(
        "probe", corpus, *models, "--sample", "60", "--want-overlap", "0.99",
        "--scores", scores, *OPTIONS,
    )  # fmt: skip
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == (
        f"60 rows: rank correlation of IFD and overlap of the best 10% with {tiny_model}"
    )
    text = " ".join(out.split())
    # A model agrees with itself; two random ones do not.
    assert re.search(r"1\.00x \d+ 1\.000 1\.000", text)
    assert f"no faster model has an overlap of at least 0.99 with {tiny_model}" in text

    # What stays is what `compare` reads, and has the same figures.
    ids = {
        json.loads(path.read_text(encoding="utf-8"))["model_name"]: path.parent.name
        for path in scores.glob("*/identity.json")
    }
    assert set(ids) == {str(other), str(tiny_model)}
    rows = ds.dataset(sorted((scores / ids[str(other)]).rglob("*.parquet"))).to_table()
    assert rows.num_rows == 60
    code, _, err = sf_ray_cli("compare", scores, scores)
    assert (code, err.count("max_length 128, 60 rows")) == (1, 2)
    code, compared, err = sf_ray_cli(
        "compare", scores, scores, "--at", "0.1",
        "--scoring-id-a", ids[str(other)], "--scoring-id-b", ids[str(tiny_model)],
    )  # fmt: skip
    assert (code, err) == (0, "")
    shown = re.search(r"IFD\s+(-?\d\.\d{3})\n", compared)
    assert shown
    assert shown[1] in text
    overlap = re.search(r"^10% .* (\d\.\d{3})$", compared, re.MULTILINE)
    assert overlap
    assert overlap[1] in text
    assert not list(temporary.iterdir())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_model_that_does_not_load_is_named_before_any_scores(
    corpus: Path, tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    broken = make_model(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, out, err = sf_ray_cli("probe", corpus, "--models", f"{tiny_model},{broken}", *OPTIONS)
    assert code == 1
    assert out == ""
    assert f"error: --models {broken}: model {broken}: cannot be loaded" in err
    assert "scoring" not in err
