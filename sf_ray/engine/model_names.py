"""What the files of a model name: other files, and classes. A stranger may have written them.

The fingerprint of a model is of the files in its folder, so that nothing else may be loaded: no
file that an index or a configuration names elsewhere, and no class that is not of the library that
loads it, whatever version of the library is installed. Reads JSON; loads no model.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sf_ray.errors import SfRayError
from sf_ray.storage.files import read_bounded
from sf_ray.storage.json_files import parse_json
from sf_ray.storage.location import Location

# Folders in which sentence-transformers keeps the modules behind the transformer, as `1_Pooling`.
MODULE_FOLDER = re.compile(r"\d+_\w+")
_MODULE_CLASS = re.compile(r"sentence_transformers(\.[A-Za-z_]\w*)+")
_INDEX = "*.safetensors.index.json"
# No configuration is larger; a tokenizer.json is, and is not read here.
_MOST_BYTES = 64 << 20


def check_names(model: str, folder: Path) -> None:
    """Refuses a model whose files name what lies outside its folder, or code.

    Args:
        model: The model, for errors.
        folder: Its directory.

    Raises:
        SfRayError: Names the file, and what stands in it.
    """
    for path, what, name in _named_files(model, folder):
        if not isinstance(name, str) or not _is_in(folder, name):
            raise SfRayError(
                f"model {model}: {path.name} names {_short(name)} as {what}, which is no file in "
                "the model's own folder; nothing else is loaded: download the model again"
            )
    if (folder / "adapter_config.json").is_file():
        raise SfRayError(
            f"model {model}: it is an adapter of another model (adapter_config.json); merge both, "
            "and save the result with save_pretrained"
        )
    _check_modules(model, folder)


def read_object(model: str, path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model; empty where there is no such file.

    Raises:
        SfRayError: The file is something else.
    """
    if not path.is_file():
        return {}
    try:
        # Some models have bounds of infinity there.
        value = parse_json(read_bounded(Location(str(path)), _MOST_BYTES), only_finite=False)
        if not isinstance(value, dict):
            raise ValueError(f"it is a {type(value).__name__}")
    except ValueError as error:
        raise SfRayError(
            f"model {model}: {path.name} is no JSON object ({error}); download the model again"
        ) from None
    return value


def _named_files(model: str, folder: Path) -> Iterator[tuple[Path, str, object]]:
    """Every place where a library takes the name of a file from a model's own files."""
    for path in sorted(folder.glob(_INDEX)):
        weights = read_object(model, path).get("weight_map")
        if not isinstance(weights, dict):
            raise SfRayError(f"model {model}: {path.name} has no weight_map; download it again")
        for name in dict.fromkeys(map(_hashable, weights.values())):
            yield path, "weights", name
    path = folder / "config.json"
    if (name := read_object(model, path).get("transformers_weights")) is not None:
        yield path, "weights", name
    path = folder / "tokenizer_config.json"
    names = read_object(model, path).get("fast_tokenizer_files") or []
    for name in names if isinstance(names, list) else [names]:
        yield path, "tokenizer", name


def _hashable(value: object) -> object:
    return value if isinstance(value, str) else repr(value)


def _is_in(folder: Path, name: str) -> bool:
    # Whatever it links to: the fingerprint is of the content, and the hub's cache is all links.
    return name == Path(name).name and "\\" not in name and (folder / name).is_file()


def _check_modules(model: str, folder: Path) -> None:
    """Refuses an encoder of which a part is no module of sentence-transformers."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        parts = [(module["type"], module.get("path", "")) for module in modules]
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise SfRayError(
            f"model {model}: modules.json is no list of modules ({error}); download it again"
        ) from None
    for kind, place in parts:
        if not isinstance(kind, str) or not _MODULE_CLASS.fullmatch(kind):
            raise SfRayError(
                f"model {model}: modules.json names the class {_short(kind)}, which is code that "
                "sentence-transformers does not have; sf_ray runs no code of an encoder: use "
                "another --encoder"
            )
        is_known = isinstance(place, str) and (not place or MODULE_FOLDER.fullmatch(place))
        if not is_known or (folder / str(place) / "router_config.json").is_file():
            raise SfRayError(
                f"model {model}: modules.json names the folder {_short(place)}, whose files are no "
                "part of the encoder's fingerprint; use another --encoder"
            )
        if place and any((folder / place).glob("*.bin")):
            raise SfRayError(
                f"model {model}: {place} holds pickled weights (*.bin), which are not loaded; save "
                "the encoder again with safetensors"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
