"""Which files of a corpus are shards, and of which file type; decides by name and opens no file."""

from enum import StrEnum


class FileType(StrEnum):
    """The file type of a shard; a corpus has one."""

    PARQUET = "Parquet"
    ARROW = "Arrow"
    JSON = "JSON"


EXPECTED = "*.parquet, *.arrow, or *.jsonl, *.ndjson, *.json (also with .gz, .zst or .zstd)"
_FILE_TYPES = {
    ".parquet": FileType.PARQUET,
    ".arrow": FileType.ARROW,
    ".arrows": FileType.ARROW,
    ".feather": FileType.ARROW,
    ".ipc": FileType.ARROW,
    ".jsonl": FileType.JSON,
    ".ndjson": FileType.JSON,
    ".json": FileType.JSON,
}
_CODECS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
# Descriptions that the `datasets` library and the hub put beside the shards.
_DESCRIPTIONS = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}


def file_type_of(path: str) -> FileType | None:
    """The file type of a shard with this name; None where a file of this name is not a shard."""
    name = path.rpartition("/")[2]
    plain, codec = _split(name)
    matching = (type_ for suffix, type_ in _FILE_TYPES.items() if plain.endswith(suffix))
    file_type = next(matching, None)
    if codec and file_type is not FileType.JSON:  # Parquet and Arrow compress inside the file
        return None
    # `Dataset.map` keeps its results as cache-*.arrow beside the shards that it has read.
    is_cache = file_type is FileType.ARROW and name.startswith("cache-")
    return None if is_cache or name in _DESCRIPTIONS else file_type


def codec_of(path: str) -> str | None:
    """The compression of a JSON shard with this name: "gzip", "zstd" or None."""
    return _split(path)[1]


def may_be_array(path: str) -> bool:
    """Whether a JSON shard with this name may be one array, instead of one object a line."""
    return _split(path)[0].endswith(".json")


def suffix_of(path: str) -> str:
    """The end of a shard's name that shows its file type, e.g. ".jsonl.gz"."""
    plain, codec = _split(path)
    return "." + plain.rpartition(".")[2] + (path[len(plain) :] if codec else "")


def _split(path: str) -> tuple[str, str | None]:
    """The name without the suffix of a compression, and the compression."""
    for suffix, codec in _CODECS.items():
        if path.endswith(suffix):
            return path.removesuffix(suffix), codec
    return path, None
