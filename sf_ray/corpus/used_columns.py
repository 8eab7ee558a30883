"""Which schemas will do, by the columns that are used: the others may differ from shard to shard.

Pure functions of schemas. Does not know which columns an option names, or what becomes of a shard
that will not do.
"""

from collections.abc import Iterable

import pyarrow as pa

from sf_ray.corpus.formats import Format
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.readers.json_lines import LINES
from sf_ray.text.printable import printable

# Columns that an error about two schemas names.
_SHOWN = 3


def top_level(columns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The top-level columns that hold `columns`, each once.

    Args:
        columns: Columns, or fields inside a nested column, e.g. `data.messages`.
        names: The top-level columns of the shard. A name with a dot may be one of them.
    """
    existing = set(names)
    tops = (name if name in existing else name.partition(".")[0] for name in columns)
    return list(dict.fromkeys(tops))


def text_problem(schema: pa.Schema, row_format: Format) -> str:
    """What keeps rows of a schema from having the texts of a format; "" where nothing does.

    Types of JSON are those of the values of each row, so every JSON shard will do.

    Args:
        schema: Columns and types of a shard. An optional column may be absent.
        row_format: The format, which says what columns are used.
    """
    if schema.equals(LINES):
        return ""
    for field, path in row_format.columns.items():
        is_required = field in row_format.required
        found = find_fields(schema, path)
        if not found and is_required and not _values_tell(schema, path):
            return f"it has no column {path!r}"
        if len(found) > 1:
            return f"it has {len(found)} columns of the name {path!r}"
        if not found or not (is_required or field in row_format.texts):
            continue  # e.g. images: each value tells whether it can be used
        if not _may_hold_text(found[0].type, not is_required):
            return f"column {path!r} has the type {found[0].type}; expected text"
    return ""


def find_fields(schema: pa.Schema, path: str) -> list[pa.Field]:
    """The columns of this name, mostly one; none where it is absent.

    Args:
        schema: Columns and types.
        path: A column, or a field inside nested ones, e.g. `data.messages`.
    """
    fields = [field for field in schema if field.name == path]
    if fields:
        return fields
    first, *rest = path.split(".")
    fields = [field for field in schema if field.name == first]
    for name in rest:
        if len(fields) != 1:
            return fields
        inside = list(fields[0].type) if pa.types.is_struct(fields[0].type) else []
        fields = [field for field in inside if field.name == name]
    return fields


def _values_tell(schema: pa.Schema, path: str) -> bool:
    """Whether a column on the way to a field is no struct, so that only values show the field."""
    parts = path.split(".")
    ways = (find_fields(schema, ".".join(parts[:end])) for end in range(1, len(parts)))
    return any(len(way) == 1 and not pa.types.is_struct(way[0].type) for way in ways)


def _may_hold_text(column_type: pa.DataType, is_optional: bool) -> bool:
    if isinstance(column_type, pa.BaseExtensionType):  # e.g. arrow.json
        return _may_hold_text(column_type.storage_type, is_optional)
    if pa.types.is_dictionary(column_type) or pa.types.is_run_end_encoded(column_type):
        return _may_hold_text(column_type.value_type, is_optional)
    return bool(
        pa.types.is_string(column_type)
        or pa.types.is_large_string(column_type)
        or pa.types.is_string_view(column_type)
        or pa.types.is_null(column_type)
        or pa.types.is_nested(column_type)
        # pandas writes a column without any value as numbers that are all NaN.
        or (is_optional and pa.types.is_floating(column_type))
    )


def different_columns(corpus: Corpus) -> str:
    """Which two shards cannot go into one file, and why; "" where all shards can.

    In Parquet, text is the same whether it is to be read as `string` or as `large_string`, and so
    are lists and dictionaries.
    """
    (schema, (example, *_)), *others = corpus.by_schema()
    is_parquet = corpus.file_type is FileType.PARQUET
    columns = _stored(schema, is_parquet)
    for other, (shard, *_) in others:
        theirs = _stored(other, is_parquet)
        if theirs == columns:
            continue
        mine, yours = dict(columns), dict(theirs)
        names = [name for name in {**mine, **yours} if mine.get(name) != yours.get(name)]
        details = [
            f"column {name!r} is {mine.get(name, 'absent')} and {yours.get(name, 'absent')}"
            for name in names[:_SHOWN]
        ]
        if len(names) > _SHOWN:
            details.append(f"{len(names) - _SHOWN} more columns differ")
        return (
            f"{printable(example.file.relative)} and {printable(shard.file.relative)} differ: "
            f"{'; '.join(details) or 'the same columns are in another order'}"
        )
    return ""


def _stored(schema: pa.Schema, is_parquet: bool) -> list[tuple[str, str]]:
    """Name and type of each column, as the file stores them."""
    return [
        (
            field.name,
            f"{_plain(field.type) if is_parquet else field.type}"
            f"{'' if field.nullable else ' not null'}",
        )
        for field in schema
    ]


def _plain(column_type: pa.DataType) -> pa.DataType:
    """The type without what Arrow knows and Parquet does not: views, large types, dictionaries."""
    types = pa.types
    if types.is_dictionary(column_type):
        return _plain(column_type.value_type)
    if types.is_large_string(column_type) or types.is_string_view(column_type):
        return pa.string()
    if types.is_large_binary(column_type) or types.is_binary_view(column_type):
        return pa.binary()
    if types.is_struct(column_type):
        return pa.struct([_plain_field(field) for field in column_type])
    if types.is_map(column_type):
        return pa.map_(_plain(column_type.key_type), _plain_field(column_type.item_field))
    if any(
        is_list(column_type)
        for is_list in (
            types.is_list,
            types.is_large_list,
            types.is_list_view,
            types.is_large_list_view,
            types.is_fixed_size_list,
        )
    ):
        # The name of the element is no part of the type.
        return pa.list_(_plain_field(column_type.value_field.with_name("element")))
    return column_type


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _plain(field.type), field.nullable)
