from pathlib import Path

import pyarrow.dataset as ds
import pytest

from sf_ray.commands.demo import write_corpus
from sf_ray.config.registry import COMMANDS, load


def test_the_damage_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    assert len(list((tmp_path / "corpus").glob("*.parquet"))) == 4
    rows = ds.dataset(tmp_path / "corpus").to_table().to_pylist()
    kinds = [row["planted"] for row in rows]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "intact": 240,
        "exchanged": 45,
        "empty": 9,
        "null": 6,
    }
    assert all((row["output"] == "") == (row["planted"] == "empty") for row in rows)
    assert all((row["output"] is None) == (row["planted"] == "null") for row in rows)
    answers = [row["output"] for row in rows if row["planted"] in ("intact", "exchanged")]
    assert len(set(answers)) == len(answers)  # exchanged, not copied


def test_the_same_python_makes_the_same_corpus(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_corpus(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.ray
@pytest.mark.weights
@pytest.mark.usefixtures("ray_session")
def test_the_demo_tells_what_became_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sf_ray.commands import demo

    # Few and short rows: the whole demo takes minutes.
    documented = demo._documented()
    monkeypatch.setattr(demo, "_documented", lambda: [p for p in documented if len(p[1]) < 120])
    monkeypatch.setattr(demo, "_ROWS", 40)
    demo.demo(load(COMMANDS["demo"], {"output": str(tmp_path / "out")}, None))  # type: ignore[arg-type]
    out = " ".join(capsys.readouterr().out.split())
    assert "what became of the planted rows" in out
    for kind in ("intact 32 32", "exchanged 6 6", "empty 1 0", "null 1 0"):
        assert kind in out
    assert f" select {tmp_path}/out/corpus" in out
