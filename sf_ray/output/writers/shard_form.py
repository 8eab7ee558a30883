"""How a shard is stored, beyond the values of its rows; a filtered shard is stored the same way."""

from dataclasses import dataclass

from sf_ray.corpus.readers.arrow import STREAM, ArrowReader, IpcForm
from sf_ray.corpus.readers.json_lines import JsonReader
from sf_ray.corpus.readers.parquet import StoredParquetReader
from sf_ray.corpus.readers.parquet_footer import StoredColumns
from sf_ray.corpus.readers.shard import ShardReader
from sf_ray.corpus.tables.columns import TableReader
from sf_ray.corpus.tables.lance import LanceReader


@dataclass(frozen=True)
class ShardForm:
    """How a shard is stored. Only the attribute of its own file type counts.

    Attributes:
        is_array: JSON rows are the elements of one array.
        ipc: Whether Arrow is a file or a stream, and how it is compressed.
        columns: What the stored values of Parquet mean; None where rows are no stored values,
            because a table says what they mean.
    """

    is_array: bool = False
    ipc: IpcForm = STREAM
    columns: StoredColumns | None = None


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
