"""Which files of a corpus are shards, and of which file type; decides by name and opens no file.

Capitals in a suffix make no difference: `B.JSONL` is JSON.
"""

from enum import StrEnum


class FileType(StrEnum):
    """The file type of a shard; a corpus has one."""

    PARQUET = "Parquet"
    ARROW = "Arrow"
    JSON = "JSON"


_FILE_TYPES = {
    ".parquet": FileType.PARQUET,
    ".parq": FileType.PARQUET,
    ".pq": FileType.PARQUET,
    ".arrow": FileType.ARROW,
    ".arrows": FileType.ARROW,
    ".feather": FileType.ARROW,
    ".ipc": FileType.ARROW,
    ".jsonl": FileType.JSON,
    ".ndjson": FileType.JSON,
    ".json": FileType.JSON,
}
_CODECS = {
    ".gz": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".xz": "xz",
    ".lz4": "lz4",
}
EXPECTED = "*.parquet, *.arrow, or *.jsonl, *.ndjson, *.json (also with .gz, .zst, .bz2, .xz, .lz4)"
# Descriptions that the `datasets` library and the hub put beside the shards.
_DESCRIPTIONS = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}
# Texts for people, which no tool takes for data.
_FOR_PEOPLE = ("readme", "license", "licence", "citation")
# Names of downloads that have not ended, and of compressions and archives that are not read.
_UNFINISHED = (".part", ".partial", ".crdownload", ".incomplete", ".tmp", ".download")
_PACKED = (
    ".zip", ".tar", ".tgz", ".7z", ".rar", ".lzo", ".lzma", ".br", ".snappy", ".sz", ".z", ".lz"
)  # fmt: skip


def file_type_of(path: str) -> FileType | None:
    """The file type of a shard with this name; None where a file of this name is not a shard."""
    name = path.rpartition("/")[2].lower()
    plain, codec = _split(name)
    matching = (type_ for suffix, type_ in _FILE_TYPES.items() if plain.endswith(suffix))
    file_type = next(matching, None)
    if codec and file_type is not FileType.JSON:  # Parquet and Arrow compress inside the file
        return None
    # `Dataset.map` keeps its results as cache-*.arrow beside the shards that it has read.
    is_cache = file_type is FileType.ARROW and name.startswith("cache-")
    return None if is_cache or name in _DESCRIPTIONS else file_type


def why_not_read(path: str) -> str | None:
    """Why a file that is no shard is passed over; None where nobody expects that it is read."""
    name = path.rpartition("/")[2].lower()
    plain, codec = _split(name)
    if name in _DESCRIPTIONS or name.startswith(_FOR_PEOPLE) or name.endswith((".md", ".crc")):
        return None
    if name.startswith("cache-") and name.endswith(".arrow"):
        return None
    if name.endswith(_UNFINISHED):
        return "not read: its name is that of an unfinished file"
    if codec and plain.endswith(tuple(_FILE_TYPES)):
        return "not read: only JSON is compressed as a whole file; unpack it"
    if name.endswith(_PACKED):
        return "not read: unpack it"
    return "not read"


def codec_of(path: str) -> str | None:
    """The compression of a JSON shard with this name: "gzip", "zstd", ..., or None."""
    return _split(path)[1]


def may_be_array(path: str) -> bool:
    """Whether a JSON shard with this name may be one array, instead of one object a line."""
    return _split(path)[0].lower().endswith(".json")


def suffix_of(path: str) -> str:
    """The end of a shard's name that shows its file type, e.g. ".jsonl.gz"."""
    plain, codec = _split(path)
    return "." + plain.rpartition(".")[2] + (path[len(plain) :] if codec else "")


def _split(path: str) -> tuple[str, str | None]:
    """The name without the suffix of a compression, and the compression."""
    for suffix, codec in _CODECS.items():
        if path.lower().endswith(suffix):
            return path[: -len(suffix)], codec
    return path, None
