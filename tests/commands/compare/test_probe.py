import json
import re
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from bench.support.corpora import make_rows, write_shards
from bench.support.models import make_model
from tests.support.cli import Cli

OPTIONS = ("--max-length", "128", "--unit-rows", "24")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "demo"), "should have at least 2 items"),
        (("--models", "a,b,a"), "--models names a twice"),
        (("--models", "a,b", "--sample", "10", "--keep-fraction", "0.05"), "less than one row"),
        (("--models", "a,b", "--scores", "{corpus}/scores"), "lie inside each other"),
        (("--models", "/no/such/model,/nor/this"), "model /no/such/model: no such directory"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_anything_starts(
    arguments: tuple[str, ...], words: str, corpus: Path, sf_ray_cli: Cli
) -> None:
    filled = [argument.format(corpus=corpus) for argument in arguments]
    code, _, err = sf_ray_cli("probe", corpus, *filled)
    assert code in (1, 2)
    assert words in err
    assert "Traceback" not in err


@pytest.mark.release
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_models_are_compared_with_the_last_one(
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


@pytest.mark.release
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
    assert not re.search(r"scoring [\d,]+ rows with", err)  # no model began
