import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import ray
import transformers

from sf_ray.corpus.formats import resolve_format
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
from sf_ray.engine.flops import cost_of_config
from sf_ray.engine.model_files import (
    context_window,
    load_tokenizer,
    resolve_dtype,
    resolve_model,
    tokenizer_kind,
)
from sf_ray.errors import SfRayError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SF_RAY_CACHE", str(tmp_path / "cache"))


def test_a_model_is_its_content_not_its_place(tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "elsewhere")
    here, there = resolve_model(str(tiny_model)), resolve_model(str(copy))
    assert here.fingerprint == there.fingerprint
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert resolve_model(str(copy)).fingerprint != here.fingerprint


def test_a_remote_directory_is_fetched_once(tiny_model: Path, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(tiny_model) + "/", "/models/tiny/", recursive=True)
    fetched = resolve_model("memory://models/tiny")
    assert fetched.fingerprint == resolve_model(str(tiny_model)).fingerprint
    assert load_tokenizer(fetched).is_fast
    made = fetched.path.stat().st_ctime_ns
    assert resolve_model("memory://models/tiny").path.stat().st_ctime_ns == made
    assert list(fetched.path.parent.glob("*.unfinished")) == []


def test_a_cache_that_takes_nothing_is_said_and_another_place_serves(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    remote = f"memory://{tmp_path.name}/model"
    fsspec.filesystem("memory").put(f"{tiny_model}/", remote, recursive=True)
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("SF_RAY_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    model = resolve_model(remote)
    assert model.fingerprint == resolve_model(str(tiny_model)).fingerprint
    assert resolve_model(remote).path == model.path
    assert (tmp_path / "tmp") in model.path.parents
    assert "the model cache" in (said := capsys.readouterr().err)
    assert "Not a directory" in said
    assert said.count("fetching it") == 1
    assert model.path.parent.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(SfRayError, match=rf"^{tmp_path}/file \(TMPDIR, .*\): no such path"):
        resolve_model(remote)


def test_a_folder_that_others_can_write_to_serves_no_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = f"memory://{tmp_path.name}/model"
    fsspec.filesystem("memory").put(f"{tiny_model}/", remote, recursive=True)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SF_RAY_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    planted = tmp_path / f"sf_ray-models-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert planted not in resolve_model(remote).path.parents


def test_the_window_is_read_from_the_configuration(tiny_model: Path) -> None:
    assert context_window(resolve_model(str(tiny_model))) == 256


def test_pickled_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "pickled")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(SfRayError, match=r"no \*.safetensors in it"):
        resolve_model(str(copy))


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SfRayError, match="no config.json in it"):
        resolve_model(str(tmp_path))
    with pytest.raises(SfRayError, match="no model files there"):
        fsspec.filesystem("memory").mkdirs("/empty", exist_ok=True)
        resolve_model("memory://empty")


def test_an_unknown_name_says_that_hub_names_need_a_network() -> None:
    with pytest.raises(SfRayError, match="Hub names need a network.* a directory.* does not"):
        resolve_model("nobody/nothing-of-this-name")


def test_a_tokenizer_that_cannot_be_loaded_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "broken")
    (copy / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(SfRayError, match="tokenizer cannot be loaded"):
        load_tokenizer(resolve_model(str(copy)))


@pytest.mark.parametrize("declared", ["TokenizersBackend", "GPT2Tokenizer", "Qwen2Tokenizer"])
def test_a_tokenizer_of_a_known_class_is_the_one_that_transformers_finds(
    tiny_model: Path, tmp_path: Path, declared: str
) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "declares")
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": declared}))
    model = resolve_model(str(copy))
    found = load_tokenizer(model)
    kind = tokenizer_kind(found)
    assert kind is not None
    assert kind.endswith("." + declared)
    known = load_tokenizer(model, kind=kind)
    assert type(known) is type(found)
    assert known.backend_tokenizer.to_str() == found.backend_tokenizer.to_str()
    assert known.special_tokens_map == found.special_tokens_map


# Checks one specification after the other, and prints after each whether torch is loaded by now.
CHECKS = """
import pickle, sys
for spec in pickle.load(sys.stdin.buffer):
    pickle.loads(spec).check()
    print('torch' in sys.modules)
"""


@pytest.mark.slow
def test_workers_load_the_tokenizer_without_torch(tiny_model: Path) -> None:
    model = ModelSpec(str(tiny_model), resolve_model(str(tiny_model)).fingerprint)
    spec = EncodingSpec(resolve_format(["prompt", "completion"]), model, 64, "reference")
    # The class of a worker's own specification is found with torch: else it need not be sent.
    sent = [ray.cloudpickle.dumps(spec.for_workers()), ray.cloudpickle.dumps(replace(spec))]
    checked = subprocess.run(
        [sys.executable, "-c", CHECKS], input=pickle.dumps(sent), capture_output=True, check=True
    )
    assert checked.stdout.decode().split() == ["False", "True"]


@pytest.mark.weights
def test_a_gguf_file_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SF_RAY_CACHE")
    demo = resolve_model("demo")
    assert (demo.path / "model.safetensors").is_file()
    made = demo.path.stat().st_ctime_ns
    assert resolve_model("demo").path.stat().st_ctime_ns == made


def test_auto_is_exact_on_cpu_and_half_precision_on_cuda() -> None:
    assert resolve_dtype("auto", "cpu") == "float32"
    assert resolve_dtype("auto", "cuda") == "float16"
    assert resolve_dtype("bfloat16", "cuda") == "bfloat16"


def test_a_model_beside_the_driver_is_found_from_another_directory(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    model = resolve_model(tiny_model.name)
    sent = pickle.dumps(ModelSpec(tiny_model.name, model.fingerprint))
    hub = pickle.dumps(ModelSpec("org/name", "f"))
    monkeypatch.chdir(tmp_path)
    there: ModelSpec = pickle.loads(sent)
    assert there.resolve().fingerprint == model.fingerprint
    assert pickle.loads(hub).name == "org/name"


def test_what_lies_beside_a_gguf_file_is_not_read_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoConfig": "evil.Config"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit(9)\n")
    seen: list[tuple[list[str], object]] = []

    def from_pretrained(pretrained_model_name_or_path: str, **given: object) -> None:
        beside = sorted(path.name for path in Path(pretrained_model_name_or_path).iterdir())
        seen.append((beside, given["trust_remote_code"]))
        raise ValueError("not a model")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(SfRayError, match="cannot be converted from GGUF: not a model"):
        resolve_model(str(tmp_path / "x.gguf"))
    assert seen == [(["model.gguf"], False)]


def test_weights_outside_of_the_folder_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "model")
    (copy / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (copy / "other.safetensors").write_bytes(b"")
    index = {"metadata": {}, "weight_map": {"x": "../outside.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SfRayError, match="no file in the model's own folder"):
        resolve_model(str(copy))


def test_code_beside_a_model_is_never_imported_unless_allowed(
    tiny_model: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "model")
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    for name, auto in (("tokenizer_config.json", "AutoTokenizer"), ("config.json", "AutoConfig")):
        value = json.loads((copy / name).read_text())
        value["auto_map"] = {auto: ["evil.X", "evil.X"] if auto == "AutoTokenizer" else "evil.X"}
        value |= {"tokenizer_class": "X"} if auto == "AutoTokenizer" else {"model_type": "evil"}
        (copy / name).write_text(json.dumps(value))
    model = resolve_model(str(copy))
    with pytest.raises(SfRayError, match="its tokenizer cannot be loaded"):
        load_tokenizer(model)
    with pytest.raises(SfRayError):
        cost_of_config(model.path)
    assert not (tmp_path / "ran").exists()
