"""Joins Arrow batches whose dictionaries may differ, without changing what an index stands for.

The dictionary of a column belongs to a batch, not to the schema: another batch may have another
one. Pure functions over batches: no files.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import types

from sf_ray.corpus.readers.arrow import has_dictionary
from sf_ray.errors import SfRayError


def join_batches(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The same rows in fewer batches: in one, unless that would change more than their number.

    Batches with different dictionaries stay apart: a common one could have more values than their
    indices can count, and has no order where the dictionaries had one.

    Args:
        batches: Of one schema.
    """
    groups: list[list[pa.RecordBatch]] = []
    for batch in batches:
        if groups and _same_dictionaries(groups[-1][-1], batch):
            groups[-1].append(batch)
        else:
            groups.append([batch])
    return [joined for group in groups for joined in _joined(group)]


def with_one_dictionary(table: pa.Table) -> pa.Table:
    """The same rows, where each dictionary of a column is the same in all chunks.

    Raises:
        SfRayError: The dictionaries do not fit into one.
    """
    batches = table.to_batches()
    if all(_same_dictionaries(batches[0], batch) for batch in batches[1:]):
        return table
    try:
        return table.unify_dictionaries()
    except pa.ArrowException as error:
        names = [field.name for field in table.schema if has_dictionary(field.type)]
        raise SfRayError(
            f"the dictionaries of the column {' or '.join(map(repr, names))} differ between shards "
            f"and do not fit into one ({error}), which rows in another order need; use --order "
            "input: no row is scored again"
        ) from error


def _joined(group: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    if len(group) == 1:
        return group
    try:
        return [pa.concat_batches(group)]
    except pa.ArrowException:
        # Together they have more than one batch can count, e.g. with run ends of 16 bits; or are of
        # a type that Arrow cannot join, e.g. runs of an extension type. Apart they are good.
        return group


def _same_dictionaries(one: pa.RecordBatch, other: pa.RecordBatch) -> bool:
    places = [i for i, field in enumerate(one.schema) if has_dictionary(field.type)]
    for place in places:
        pairs = zip(_dictionaries(one[place]), _dictionaries(other[place]), strict=True)
        # As bytes first, because NaN is not equal to itself.
        if not all(a.buffers() == b.buffers() or a.equals(b) for a, b in pairs):
            return False
    return True


def _dictionaries(array: pa.Array) -> Iterator[pa.Array]:
    """The dictionaries in an array, at any depth."""
    value_type = array.type
    if not has_dictionary(value_type):
        return
    if types.is_dictionary(value_type):
        yield array.dictionary
        parts = [array.dictionary]
    elif isinstance(value_type, pa.BaseExtensionType):
        parts = [array.storage]
    elif types.is_struct(value_type) or types.is_union(value_type):
        parts = [array.field(i) for i in range(value_type.num_fields)]
    elif types.is_map(value_type):
        parts = [array.keys, array.items]
    else:  # lists of every kind, and runs
        parts = [array.values]
    for part in parts:
        yield from _dictionaries(part)
