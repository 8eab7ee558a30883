"""Files of one size, written in this process: no Ray."""

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.shard import open_shard
from sf_ray.corpus.units import units_of
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.output.sized_tasks import plan_files, rows_to_file, write_sized
from sf_ray.output.sorted_parts import part_names
from sf_ray.output.writers.held_rows import RowGroupSize
from sf_ray.output.writers.shard_form import AskedForm
from sf_ray.selection.chunks import Eligible, Kept
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.cutoffs import Bounds, Cutoff, Cutoffs
from sf_ray.selection.ranking import GroupCutoff, Ranking
from sf_ray.selection.selection import Selection
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from tests.support.scored import InThisProcess, write_pieces

ROWS, UNIT_ROWS = 1200, 20


def texts(seed: int) -> list[str]:
    """Texts that hardly compress: the size of a file is that of its rows."""
    rng = random.Random(seed)
    return [rng.randbytes(rng.randint(20, 400)).hex() for _ in range(ROWS // 3)]


def selection_of(folder: Path, last: Cutoff | None = None) -> Selection:
    corpus = plan_corpus(Location(str(folder)))
    scores = Location(f"{folder}-scores")
    Path(scores.path).mkdir(exist_ok=True)
    units = [(shard, units_of(shard.row_groups, UNIT_ROWS)) for shard in corpus.shards]
    ifd = np.random.default_rng(0).random(ROWS)
    write_pieces(scores, units, [{"ifd": float(value)} for value in ifd])
    last = last or Cutoff(0.25, ROWS)
    kept = int((ifd > last.value).sum())
    return Selection(
        corpus,
        cast(CorpusPass, InThisProcess()),
        units,
        Kept(Eligible(scores, Bounds(0, 1)), Cutoffs((last,))),
        Ranking({"ok": ROWS}, (), (GroupCutoff("", ROWS, kept, ROWS, kept, last),)),
    )


def written(selection: Selection, out: Path, size: int, asked: AskedForm) -> list[WrittenShard]:
    file_type = selection.corpus.file_type
    file_of_rows = rows_to_file(selection, "ifd", asked)
    (name,) = part_names(file_type, 1, asked.compression)
    chunks = plan_files(selection, file_of_rows, size, name)
    names = part_names(file_type, len(chunks), asked.compression)
    return write_sized(selection, file_of_rows, chunks, names, Location(str(out)))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of the files, one file after the other, as JSON or Arrow holds them."""
    place = Location(str(folder))
    rows = []
    for file in list_files(place):
        with open_shard(place, file) as reader:
            rows += [row for batch in reader.batches(100) for row in batch.to_pylist()]
    return rows


@pytest.fixture(params=["parquet", "arrow", "jsonl"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for shard in range(3):
        table = pa.table({"text": texts(shard)})
        path = folder / f"{shard}.{request.param}"
        if request.param == "parquet":
            pq.write_table(table, path, row_group_size=50)
        elif request.param == "arrow":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=50)
        else:
            table.to_pandas().to_json(path, orient="records", lines=True)
    return folder


def test_files_have_about_the_size_and_all_rows_in_the_order_of_the_input(
    corpus: Path, tmp_path: Path
) -> None:
    selection = selection_of(corpus)
    # Packed, the files are about half of what they are in the corpus, and a quarter is not kept.
    size = selection.corpus.bytes // 10
    files = written(selection, tmp_path / "one", size, AskedForm("zstd"))
    assert len(files) > 2
    assert all(abs(file.bytes - size) < 0.35 * size for file in files), files
    assert sum(file.rows for file in files) == selection.rows
    again = written(selection, tmp_path / "two", size, AskedForm("zstd"))
    assert again == files
    for file in files:
        bytes_of = [(tmp_path / out / file.relative).read_bytes() for out in ("one", "two")]
        assert bytes_of[0] == bytes_of[1]
    whole = written(selection, tmp_path / "whole", 1 << 30, AskedForm())
    assert len(whole) == 1
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "whole")


def test_nothing_kept_is_no_file(corpus: Path, tmp_path: Path) -> None:
    selection = selection_of(corpus, Cutoff(0.9999999, 0))
    assert written(selection, tmp_path / "out", 1000, AskedForm()) == []


@pytest.mark.parametrize("corpus", ["parquet"], indirect=True)
def test_compression_and_row_groups_are_as_asked_for(corpus: Path, tmp_path: Path) -> None:
    selection = selection_of(corpus)
    for compression in ("snappy", "gzip", "lz4", "none", "zstd"):
        out = tmp_path / compression
        asked = AskedForm(compression, RowGroupSize(rows=64))
        (file,) = written(selection, out, 1 << 30, asked)
        metadata = pq.read_metadata(out / file.relative)
        called = "UNCOMPRESSED" if compression == "none" else compression.upper()
        assert metadata.row_group(0).column(0).compression == called
        groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
        assert groups[:-1] == [64] * (len(groups) - 1)
        assert 0 < groups[-1] <= 64
