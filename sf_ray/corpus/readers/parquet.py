"""Reads Parquet: the footer at the end of a file, and its row groups. Knows no Ray and no model."""

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError, first_line
from sf_ray.storage.files import File
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import read_range, unreadable_is_bad

# Most Parquet footers are smaller than this, so that one request is enough.
_FOOTER_BYTES = 64 * 1024


def read_parquet_footer(location: Location, file: File) -> Footer:
    """Reads a Parquet footer with one ranged read, or with two where the footer is large.

    Raises:
        BadShardError: The file is not Parquet, is incomplete, or is gone.
        SfRayError: Storage failed.
    """
    tail, length = b"", 0
    if file.size > 12:  # two magic numbers and a length; servers refuse an empty range
        tail = read_range(location, file, max(file.size - _FOOTER_BYTES, 0), file.size)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if length > len(tail) and length + 4 <= file.size:
            tail = read_range(location, file, file.size - length, file.size)
    if tail[-4:] != b"PAR1" or length > len(tail):
        raise BadShardError(
            file.relative, f"not a whole Parquet file ({file.size} bytes without a valid footer)"
        )
    try:
        # The metadata reader looks at nothing but the footer and the two magic numbers.
        metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + tail[-length:]))
    except (pa.ArrowException, OSError) as error:
        raise BadShardError(
            file.relative, f"its Parquet footer cannot be read ({first_line(error)})"
        ) from error
    rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    try:
        return Footer(rows, metadata.schema.to_arrow_schema())
    except (pa.ArrowException, OSError) as error:
        raise BadShardError(
            file.relative, f"its schema cannot be read ({first_line(error)})"
        ) from error


class ParquetReader:
    """The rows of a Parquet file; a `ShardReader`."""

    def __init__(self, file: File, handle: io.RawIOBase) -> None:
        self._file = file
        with unreadable_is_bad(file):
            self._parquet = pq.ParquetFile(handle, pre_buffer=True, page_checksum_verification=True)
        self.schema: pa.Schema = self._parquet.schema_arrow

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """See `ShardReader.batches`. Ignores `offset`: the footer says where row groups begin."""
        with unreadable_is_bad(self._file):
            batches = self._parquet.iter_batches(
                rows,
                row_groups=None if groups is None else list(groups),
                columns=None if columns is None else list(columns),
                use_threads=False,  # many tasks read at the same time
            )
            for batch in batches:
                # Asked for a column "a", Parquet also reads a column "a.b".
                yield batch if columns is None else batch.select(list(columns))
