import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sf_ray.engine.model_names import check_names, read_object
from sf_ray.errors import SfRayError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    for name in ("a.safetensors", "b.safetensors", "../outside.safetensors"):
        (made / name).write_text("")
    (made / "sub").mkdir()
    (made / "sub" / "c.safetensors").write_text("")
    return made


def put(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


def test_an_index_of_files_in_the_folder_is_taken(folder: Path) -> None:
    put(folder, INDEX, {"metadata": {}, "weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    put(folder, "tokenizer_config.json", {"fast_tokenizer_files": ["config.json"]})
    check_names("m", folder)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "{folder}/../outside.safetensors",
        "{folder}/a.safetensors",
        "sub/c.safetensors",
        "./a.safetensors",
        "..",
        "",
        "gone.safetensors",
        "..\\outside.safetensors",
        7,
        None,
        ["a.safetensors"],
    ],
)
@pytest.mark.parametrize(
    "write",
    [
        lambda folder, name: put(folder, INDEX, {"weight_map": {"x": "a.safetensors", "y": name}}),
        lambda folder, name: put(
            folder, "model.other.safetensors.index.json", {"weight_map": {"y": name}}
        ),
        lambda folder, name: put(folder, "config.json", {"transformers_weights": name or "/"}),
        lambda folder, name: put(
            folder, "tokenizer_config.json", {"fast_tokenizer_files": ["config.json", name]}
        ),
    ],
    ids=["index", "another index", "config", "tokenizer"],
)
def test_a_file_outside_of_the_folder_is_refused(
    folder: Path, name: Any, write: Callable[[Path, Any], None]
) -> None:
    write(folder, name.format(folder=folder) if isinstance(name, str) else name)
    with pytest.raises(SfRayError, match="no file in the model's own folder"):
        check_names("m", folder)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([{"type": "evil.Module", "path": ""}], "names the class 'evil.Module'"),
        ([{"type": "os.system", "path": ""}], "runs no code of an encoder"),
        ([{"type": "sentence_transformers_evil.Module", "path": ""}], "names the class"),
        ([{"type": "sentence_transformers..Module", "path": ""}], "names the class"),
        ([{"type": "sentence_transformers.models.Pooling\n", "path": ""}], "names the class"),
        ([{"type": ["sentence_transformers.models.Pooling"], "path": ""}], "names the class"),
        ([{"type": "sentence_transformers.models.Pooling", "path": "../1_x"}], "names the folder"),
        ([{"type": "sentence_transformers.models.Pooling", "path": "/tmp/1_x"}], "the folder"),
        ([{"type": "sentence_transformers.models.Pooling", "path": "sub"}], "names the folder"),
        ([{"type": "sentence_transformers.models.Pooling", "path": None}], "names the folder"),
        ({"type": "sentence_transformers.models.Pooling"}, "no list of modules"),
        ([7], "no list of modules"),
        ([{}], "no list of modules"),
        (None, "no list of modules"),
    ],
)
def test_a_part_of_an_encoder_that_the_library_does_not_have_is_refused(
    folder: Path, modules: Any, words: str
) -> None:
    put(folder, "modules.json", modules)
    with pytest.raises(SfRayError, match="modules.json") as error:
        check_names("m", folder)
    assert words in str(error.value)


def test_the_modules_of_the_library_are_taken(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    modules = [
        {"idx": 0, "type": "sentence_transformers.models.Transformer", "path": ""},
        {"idx": 1, "type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"idx": 2, "type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
    ]
    put(folder, "modules.json", modules)
    check_names("m", folder)
    (folder / "1_Pooling" / "pytorch_model.bin").write_text("")
    with pytest.raises(SfRayError, match="pickled weights"):
        check_names("m", folder)


def test_an_adapter_is_refused(folder: Path) -> None:
    put(folder, "adapter_config.json", {"base_model_name_or_path": "/elsewhere"})
    with pytest.raises(SfRayError, match="adapter of another model"):
        check_names("m", folder)


@pytest.mark.parametrize("text", ["[]", "7", "null", "{", "\x00", "[" * 100_000, "9" * 5000, "é"])
def test_a_configuration_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SfRayError, match="model m: config.json is no JSON object"):
        read_object("m", tmp_path / "config.json")
