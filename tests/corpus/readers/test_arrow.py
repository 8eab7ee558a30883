from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.shard import open_shard, read_footer
from sf_ray.corpus.rows import read_units
from sf_ray.corpus.units import group_reads, units_of
from sf_ray.errors import BadShardError
from sf_ray.output.shard_writer import write_shard
from sf_ray.storage.files import list_files, put_whole
from sf_ray.storage.location import Location

TABLE = pa.table(
    {
        "text": [f"row {i}" for i in range(100)],
        "messages": [[{"role": "user", "content": f"hello {i}"}] for i in range(100)],
    }
).replace_schema_metadata({"huggingface": "{}"})


def write(path: Path, table: pa.Table = TABLE, file_format: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_file if file_format else pa.ipc.new_stream
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


@pytest.mark.parametrize("file_format", [False, True])
@pytest.mark.parametrize("is_dictionary", [False, True])
def test_record_batches_are_row_groups_that_are_read_alone(
    place: Location, file_format: bool, is_dictionary: bool
) -> None:
    table = TABLE
    if is_dictionary:
        table = table.append_column("kind", pa.array(["a", "b"] * 50).dictionary_encode())
    with put_whole(place.join("a.arrow")) as path:
        write(path, table, file_format)
    file = list_files(place)[0]
    footer = read_footer(place, file)
    assert footer.row_groups == (7,) * 14 + (2,)
    assert footer.schema.equals(table.schema, check_metadata=True)
    with open_shard(place, file) as reader:
        batches = reader.batches(5, ["text"], range(9, 11), footer.starts[9])
        read = [batch.to_pydict()["text"] for batch in batches]
    assert read == [
        [f"row {i}" for i in range(start, stop)]
        for start, stop in ((63, 68), (68, 70), (70, 75), (75, 77))
    ]
    with open_shard(place, file) as reader:
        assert pa.Table.from_batches(reader.batches(1000)).equals(table)


def test_units_are_read_as_they_were_planned(tmp_path: Path) -> None:
    write(tmp_path / "data-00000-of-00001.arrow")
    corpus = plan_corpus(Location(str(tmp_path)))
    (shard,) = corpus.shards
    for unit in units_of(shard.row_groups, 10):
        (rows,) = read_units(corpus.location, group_reads(shard, [unit])[0], ["messages.content"])
        assert rows.column_names == ["messages"]
        assert [message[0]["content"] for message in rows["messages"].to_pylist()] == [
            f"hello {i}" for i in range(unit.start, unit.stop)
        ]


def test_kept_rows_go_out_as_a_stream_with_the_same_types(tmp_path: Path) -> None:
    write(tmp_path / "in/a.arrow")
    corpus = plan_corpus(Location(str(tmp_path / "in")))
    keep = np.arange(100) % 3 == 0
    out = Location(str(tmp_path / "out"))
    write_shard(corpus.location, corpus.shards[0], np.linspace(0, 1, 100), keep, out, "ifd")
    written = pa.ipc.open_stream(tmp_path / "out/a.arrow").read_all()
    expected = TABLE.append_column("ifd", pa.array(np.linspace(0, 1, 100)))
    assert written.equals(expected.filter(pa.array(keep)))
    assert written.schema.metadata == TABLE.schema.metadata


@pytest.mark.parametrize("damage", ["cut", "empty", "rubbish"])
def test_a_damaged_stream_is_a_bad_shard(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.arrow"
    write(path)
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-300], "empty": b"", "rubbish": b"rubbish" * 99}[damage])
    with pytest.raises(BadShardError, match="shard a.arrow: cannot be read"):
        plan_corpus(Location(str(tmp_path)))
