"""Filtered shards -> the files that a training framework reads, written in Ray tasks.

Reads the filtered shards, of any file type and in any order; knows neither scores nor a model.
"""

import functools
import json
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from sf_ray.corpus.contained import contained
from sf_ray.corpus.formats import Format, Row
from sf_ray.corpus.readers.shard import open_shard
from sf_ray.corpus.rows import BadLine, rows_of
from sf_ray.output.export_descriptions import DESCRIPTIONS, description
from sf_ray.output.export_formats import Export, ExportedRow, exporter
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.runtime.tasks import parallel_map
from sf_ray.storage.files import put_bytes, put_whole, remove
from sf_ray.storage.listing import File, list_files
from sf_ray.storage.location import Location

_BATCH_ROWS = 4096


class _ExportedShard(NamedTuple):
    """The file that was made of one filtered shard.

    Attributes:
        file: The file.
        left_out: Rows of the shard that the format of the framework cannot hold.
    """

    file: WrittenShard
    left_out: int


def export_names(name: str | None, shards: int) -> list[str]:
    """The files that an export of `shards` filtered shards writes, below the folder of exports.

    Args:
        name: The framework: a value of `--export`; None where nothing is exported.
        shards: How many filtered shards there are.
    """
    if name is None:
        return []
    described = [f"{name}/{DESCRIPTIONS[name]}"] if name in DESCRIPTIONS else []
    return described + [_file_name(name, number) for number in range(shards)]


def export(
    name: str, row_format: Format, data: Location, target: Location, stall_s: float
) -> Export:
    """Exports all filtered shards, one file for each of which a row can be exported.

    Args:
        name: The framework: a value of `--export`.
        row_format: The format of the rows.
        data: The folder of the filtered shards.
        target: The folder of exports.
        stall_s: Seconds to wait for the next file.

    Raises:
        SfRayError: A filtered shard cannot be read, or storage failed.
    """
    shards = list(enumerate(list_files(data)))
    task = functools.partial(_export_shard, name, row_format, data, target)
    exported = sorted(parallel_map(task, shards, stall_s), key=lambda shard: shard.file.relative)
    files = [shard.file for shard in exported if shard.file.rows]
    text = description(name, row_format)
    if text is not None:
        relative = f"{name}/{DESCRIPTIONS[name]}"
        put_bytes(target.join(relative), text)
        files.append(WrittenShard(relative, 0, len(text)))
    return Export(name, tuple(files), sum(shard.left_out for shard in exported))


def _file_name(name: str, number: int) -> str:
    return f"{name}/data/{number:05d}.jsonl"


def _export_shard(
    name: str, row_format: Format, data: Location, target: Location, shard: tuple[int, File]
) -> _ExportedShard:
    number, file = shard
    export_row, rows, left_out = exporter(name, row_format), 0, 0
    relative = _file_name(name, number)
    place = target.join(relative)
    with put_whole(place) as path:
        with path.open("wb") as lines, open_shard(data, file) as reader:
            for batch in reader.batches(_BATCH_ROWS):
                for row in rows_of(pa.Table.from_batches([batch])):
                    line = row if isinstance(row, BadLine) else contained(_line, export_row, row)
                    if not isinstance(line, bytes):
                        left_out += 1
                        continue
                    lines.write(line)
                    rows += 1
        size = path.stat().st_size
    if not rows:
        remove(place)  # several readers fail on a file without rows
    return _ExportedShard(WrittenShard(relative, rows, size), left_out)


def _line(export_row: Callable[[Row], ExportedRow | None], row: Row) -> bytes | None:
    exported = export_row(row)
    if exported is None:
        return None
    text = json.dumps(exported, ensure_ascii=False, allow_nan=False)
    # Half of a surrogate pair, which escapes in JSON can hold, has no UTF-8.
    return text.encode("utf-8", "replace") + b"\n"
