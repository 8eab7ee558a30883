"""What was kept, once more in the form that a training framework reads; in Ray tasks.

Reads filtered shards, whatever order or kind they are of, and no model.
"""

import functools
import json

import pyarrow as pa

from sf_ray.corpus.formats import Format
from sf_ray.corpus.readers.shard import open_shard
from sf_ray.corpus.rows import BadLine, rows_of
from sf_ray.output.export_formats import LLAMA_FACTORY_INFO, Export, exporter
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.runtime.tasks import parallel_map
from sf_ray.storage.files import File, list_files, put_bytes, put_whole
from sf_ray.storage.location import Location

_BATCH_ROWS = 4096
_INFO = "dataset_info.json"


def export_names(name: str | None, shards: int) -> list[str]:
    """What an export of so many filtered shards writes, below the folder of exports."""
    if name is None:
        return []
    info = [f"{name}/{_INFO}"] if name == "llama-factory" else []
    return info + [_name(name, number) for number in range(shards)]


def export(
    name: str, row_format: Format, data: Location, target: Location, stall_s: float
) -> Export:
    """Exports all filtered shards, one file for each.

    Args:
        name: One of `exports.exporter`.
        row_format: Of the rows.
        data: Where the filtered shards lie.
        target: The folder of exports.
        stall_s: How long to wait for the next file.
    """
    shards = list(enumerate(list_files(data)))
    task = functools.partial(_export_shard, name, row_format, data, target)
    done = sorted(parallel_map(task, shards, stall_s), key=lambda one: one[0].relative)
    files = [written for written, _ in done]
    if name == "llama-factory":
        files.append(_put_info(target.join(f"{name}/{_INFO}"), f"{name}/{_INFO}"))
    return Export(name, tuple(files), sum(left_out for _, left_out in done))


def _name(name: str, number: int) -> str:
    return f"{name}/data/{number:05d}.jsonl"


def _export_shard(
    name: str, row_format: Format, data: Location, target: Location, shard: tuple[int, File]
) -> tuple[WrittenShard, int]:
    number, file = shard
    exported, rows, left_out = exporter(name, row_format), 0, 0
    relative = _name(name, number)
    with put_whole(target.join(relative)) as path:
        with path.open("wb") as lines, open_shard(data, file) as reader:
            for batch in reader.batches(_BATCH_ROWS):
                for row in rows_of(pa.Table.from_batches([batch])):
                    made = None if isinstance(row, BadLine) else exported(row)
                    if made is None:
                        left_out += 1
                        continue
                    text = json.dumps(made, ensure_ascii=False)
                    lines.write(text.encode("utf-8", "replace") + b"\n")
                    rows += 1
        size = path.stat().st_size
    return WrittenShard(relative, rows, size), left_out


def _put_info(where: Location, relative: str) -> WrittenShard:
    """Tells LLaMA-Factory of a dataset `sf_ray`, which is the folder beside."""
    told = json.dumps({"sf_ray": {"file_name": "data"} | LLAMA_FACTORY_INFO}, indent=2).encode()
    put_bytes(where, told)
    return WrittenShard(relative, 0, len(told))
