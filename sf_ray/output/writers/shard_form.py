"""How a shard is stored, beyond the values of its rows; a filtered shard is stored the same way."""

from dataclasses import dataclass, replace

from sf_ray.corpus.readers.arrow import STREAM, ArrowReader, IpcForm
from sf_ray.corpus.readers.json_lines import JsonReader
from sf_ray.corpus.readers.parquet import StoredParquetReader
from sf_ray.corpus.readers.parquet_footer import StoredColumns
from sf_ray.corpus.readers.shard import ShardReader
from sf_ray.corpus.tables.columns import TableReader
from sf_ray.corpus.tables.lance import LanceReader
from sf_ray.output.writers.held_rows import FULL_ROW_GROUP, RowGroupSize


@dataclass(frozen=True)
class ShardForm:
    """How a shard is stored. Only the attribute of its own file type counts.

    Attributes:
        is_array: JSON rows are the elements of one array.
        ipc: Whether Arrow is a file or a stream, and how it is compressed.
        columns: What the stored values of Parquet mean; None where rows are no stored values,
            because a table says what they mean.
        compression: Of what is written; None for that of the file type.
        row_group: When rows are enough for a row group.
    """

    is_array: bool = False
    ipc: IpcForm = STREAM
    columns: StoredColumns | None = None
    compression: str | None = None
    row_group: RowGroupSize = FULL_ROW_GROUP


@dataclass(frozen=True)
class AskedForm:
    """What a user asks of the files that are written; the rest is as in the input.

    Attributes:
        compression, row_group: See `ShardForm`.
    """

    compression: str | None = None
    row_group: RowGroupSize = FULL_ROW_GROUP

    def of(self, form: ShardForm) -> ShardForm:
        """The form of an input shard, with what was asked for."""
        return replace(form, compression=self.compression, row_group=self.row_group)


def form_of(reader: ShardReader) -> ShardForm:
    """The form of a shard that is open to be copied."""
    if isinstance(reader, StoredParquetReader):
        return ShardForm(columns=reader.stored)
    if isinstance(reader, ArrowReader):
        return ShardForm(ipc=reader.form)
    if isinstance(reader, TableReader | LanceReader):
        return ShardForm()
    assert isinstance(reader, JsonReader), "there are three file types"
    return ShardForm(is_array=reader.is_array())
