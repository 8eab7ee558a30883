import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.readers.shard import open_shard, read_footer
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.files import put_bytes, put_whole, remove
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location


@pytest.mark.parametrize("rows", [0, 10, 50_000])
def test_a_footer_is_read_from_the_end_of_the_file(place: Location, rows: int) -> None:
    # Row groups of two make a footer larger than the first guess.
    table = pa.table({f"column_{i}": range(rows) for i in range(3)})
    with put_whole(place.join("a.parquet")) as path:
        pq.write_table(table, path, row_group_size=100)
    file = list_files(place)[0]
    footer = read_footer(place, file)
    assert (sum(footer.row_groups), len(footer.row_groups)) == (rows, max(1, rows // 100))
    assert footer.schema.equals(table.schema)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\xff" * 99])
def test_a_file_that_is_not_parquet_is_named(place: Location, content: bytes) -> None:
    put_bytes(place.join("b/a.parquet"), content)
    with pytest.raises(SfRayError, match="shard b/a.parquet: not a whole Parquet file"):
        read_footer(place, list_files(place)[0])


def test_a_broken_footer_is_named(place: Location) -> None:
    put_bytes(
        place.join("a.parquet"), b"PAR1" + b"\x99" * 40 + (40).to_bytes(4, "little") + b"PAR1"
    )
    with pytest.raises(SfRayError, match=r"shard a.parquet: its Parquet footer cannot be read"):
        read_footer(place, list_files(place)[0])


def test_a_shard_that_changed_since_it_was_listed_is_refused(place: Location) -> None:
    for value in (1, 2):
        with put_whole(place.join("a.parquet")) as path:
            pq.write_table(pa.table({"x": [value] * value}), path)
        if value == 1:
            file = list_files(place)[0]
    with (
        pytest.raises(SfRayError, match="shard a.parquet: changed while the job ran"),
        open_shard(place, file),
    ):
        pass


def test_what_is_read_of_a_shard_is_what_was_written(place: Location) -> None:
    table = pa.table({"text": [f"row {i}" for i in range(1000)], "n": range(1000)})
    with put_whole(place.join("a.parquet")) as path:
        pq.write_table(table, path, row_group_size=100)
    with open_shard(place, list_files(place)[0]) as reader:
        assert pa.Table.from_batches(reader.batches(64)).equals(table)
        (batch,) = reader.batches(1000, ["n"], range(3, 4))
        assert batch.to_pydict() == {"n": list(range(300, 400))}


def test_a_corrupt_page_in_the_middle_is_noticed(place: Location) -> None:
    table = pa.table({"text": [f"some text of row {i}" for i in range(5000)]})
    with put_whole(place.join("a.parquet")) as path:
        pq.write_table(table, path, row_group_size=1000, compression="zstd")
        data = bytearray(path.read_bytes())
        start = pq.read_metadata(path).row_group(2).column(0).data_page_offset
        data[start + 40 : start + 400] = b"\x5a" * 360
        path.write_bytes(data)
    with (
        pytest.raises(BadShardError, match="shard a.parquet: cannot be read"),
        open_shard(place, list_files(place)[0]) as reader,
    ):
        assert [batch.num_rows for batch in reader.batches(1000, groups=range(1))] == [1000]
        list(reader.batches(1000, groups=range(2, 3)))


def test_a_flipped_bit_is_noticed_where_pages_have_checksums(place: Location) -> None:
    table = pa.table({"n": range(1000)})
    with put_whole(place.join("a.parquet")) as path:
        pq.write_table(table, path, compression="none", use_dictionary=False,
                       write_page_checksum=True)  # fmt: skip
        data = bytearray(path.read_bytes())
        data[4000] ^= 1
        path.write_bytes(data)
    with (
        pytest.raises(BadShardError, match="shard a.parquet: cannot be read"),
        open_shard(place, list_files(place)[0]) as reader,
    ):
        list(reader.batches(1000))


def test_a_shard_that_disappears_is_named(place: Location) -> None:
    with put_whole(place.join("a.parquet")) as path:
        pq.write_table(pa.table({"n": [1]}), path)
    file = list_files(place)[0]
    remove(place.join("a.parquet"))
    with pytest.raises(BadShardError, match="shard a.parquet: disappeared while the job ran"):
        read_footer(place, file)
    with pytest.raises(BadShardError, match="disappeared"), open_shard(place, file):
        pass


def test_a_shard_that_changes_while_it_is_read_is_noticed(place: Location) -> None:
    for value in (1, 2):
        with put_whole(place.join("a.parquet")) as path:
            pq.write_table(pa.table({"n": [value]}), path)
        if value == 1:
            file = list_files(place)[0]
            opened = open_shard(place, file)
            list(opened.__enter__().batches(10))
    with pytest.raises(BadShardError, match="changed while the job ran"):
        opened.__exit__(None, None, None)
