"""Which files of a corpus are shards, and of which kind: their names tell. Opens nothing."""

from enum import StrEnum


class FileType(StrEnum):
    """What a shard is written in."""

    PARQUET = "Parquet"
    ARROW = "Arrow"
    JSON = "JSON"


EXPECTED = "*.parquet, *.arrow, or *.jsonl, *.ndjson, *.json (also with .gz, .zst or .zstd)"
_FILE_TYPES = {
    ".parquet": FileType.PARQUET,
    ".arrow": FileType.ARROW,
    ".jsonl": FileType.JSON,
    ".ndjson": FileType.JSON,
    ".json": FileType.JSON,
}
_CODECS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
# What the `datasets` library and the hub put beside shards to describe them.
_DESCRIPTIONS = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}


def file_type_of(path: str) -> FileType | None:
    """The kind of the shard of this name; None where it is no shard."""
    name = path.rpartition("/")[2]
    plain, codec = _split(name)
    kind = next((kind for suffix, kind in _FILE_TYPES.items() if plain.endswith(suffix)), None)
    if codec and kind is not FileType.JSON:  # the others compress inside
        return None
    # `Dataset.map` keeps its results as cache-*.arrow beside the shards that it has read.
    is_cache = kind is FileType.ARROW and name.startswith("cache-")
    return None if is_cache or name in _DESCRIPTIONS else kind


def codec_of(path: str) -> str | None:
    """What a JSON shard of this name is compressed with: "gzip", "zstd" or nothing."""
    return _split(path)[1]


def may_be_array(path: str) -> bool:
    """Whether a JSON shard of this name may be one array, instead of one object a line."""
    return _split(path)[0].endswith(".json")


def suffix_of(path: str) -> str:
    """The end of a shard's name that tells its kind, e.g. ".jsonl.gz"."""
    plain, codec = _split(path)
    return "." + plain.rpartition(".")[2] + (path[len(plain) :] if codec else "")


def _split(path: str) -> tuple[str, str | None]:
    for suffix, codec in _CODECS.items():
        if path.endswith(suffix):
            return path.removesuffix(suffix), codec
    return path, None
