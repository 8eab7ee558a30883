"""One more column in what a file says of its own columns.

A file may describe its columns a second time, in its key-value metadata: Spark, pandas, `datasets`,
Avro and Arrow do so, and a reader that trusts its own description does not see a column that is not
in it. Every other key, every column of the file, and a description that cannot be read stay as they
came. Pure functions over bytes: no files. Does not know what the column is for.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

ARROW_SCHEMA = b"ARROW:schema"

# Names that Avro allows; a reader refuses the whole schema for another one.
_AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What pandas says of column labels that are text.
_TEXT_LABELS = {"unicode", "string", "bytes", "object", "empty", "mixed", "mixed-integer"}


class _UnknownFormError(Exception):
    """A description is not of the form that is known."""


def with_double_column(
    metadata: Mapping[bytes, bytes] | None, name: str
) -> dict[bytes, bytes] | None:
    """The key-value metadata of a file or a schema with one more column of doubles at the end.

    Args:
        metadata: As it came; None where there is none.
        name: Name of the column.
    """
    if metadata is None:
        return None
    return {key: describe_double_column(key, value, name) for key, value in metadata.items()}


def describe_double_column(key: bytes, value: bytes, name: str) -> bytes:
    """The value of one key with one more column of doubles, where the key describes columns.

    Args:
        key: The key.
        value: As it came.
        name: Name of the column.
    """
    if key == ARROW_SCHEMA:
        return _in_arrow_schema(value, name)
    add = _JSON_DESCRIPTIONS.get(key)
    if add is None:
        return value
    try:
        description = json.loads(value)
        add(description, name)
    except (ValueError, RecursionError, _UnknownFormError):
        return value  # no reader of this key can read it either, or one that is not known here
    # Spark writes no blanks, the others do.
    separators = (", ", ": ") if b'": ' in value else (",", ":")
    is_ascii = value.isascii()
    return json.dumps(description, separators=separators, ensure_ascii=is_ascii).encode()


def _in_arrow_schema(value: bytes, name: str) -> bytes:
    """Adds the column to an Arrow schema in base64, and to the metadata that the schema holds."""
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value)))
        if name in schema.names:  # which fails where one is no UTF-8
            return value
    except (ValueError, OSError, pa.ArrowException):
        return value
    metadata = with_double_column(schema.metadata, name)
    schema = schema.append(pa.field(name, pa.float64())).with_metadata(metadata)
    return base64.b64encode(schema.serialize().to_pybytes())


def _in_spark_schema(description: Any, name: str) -> None:
    """A `StructType` as JSON, which Spark writes into every Parquet file and trusts."""
    fields = _list_of_objects(_object(description).get("fields"))
    if all(field.get("name") != name for field in fields):
        fields.append({"name": name, "type": "double", "nullable": True, "metadata": {}})


def _in_features(description: Any, name: str) -> None:
    """What `datasets` writes: a mapping of features; a list of them as in dataset cards is known.

    The fingerprint goes: it stands for the content, and `datasets` would take results that it keeps
    for the unfiltered rows for results of these.
    """
    _object(description).pop("fingerprint", None)
    info = _object(description.get("info", {}))
    features = info.get("features")
    if isinstance(features, list):
        if all(feature.get("name") != name for feature in _list_of_objects(features)):
            features.append({"name": name, "dtype": "float64"})
    elif features is not None:
        _object(features).setdefault(name, {"dtype": "float64", "_type": "Value"})


def _in_pandas(description: Any, name: str) -> None:
    """What pandas needs to make the same data frame again: index, categories, column labels."""
    columns = _list_of_objects(_object(description).get("columns"))
    levels = _list_of_objects(description.get("column_indexes", []))
    for level in levels:
        # The name is text. Where other labels are numbers or dates, pandas would try to read the
        # name as one, and fail; so all labels are text, as pandas makes of mixed ones.
        if level.get("pandas_type") not in _TEXT_LABELS:
            level.update(pandas_type="unicode", numpy_type="object", metadata={"encoding": "UTF-8"})
    if any(name in (column.get("field_name"), column.get("name")) for column in columns):
        return
    # With several levels of labels, a name is written as a tuple.
    label = repr((name, *[""] * (len(levels) - 1))) if len(levels) > 1 else name
    column = {"name": label, "field_name": name, "pandas_type": "float64", "numpy_type": "float64"}
    columns.append({**column, "metadata": None})


def _in_avro_schema(description: Any, name: str) -> None:
    """A record as parquet-avro writes it, which reads the columns that the record names."""
    fields = _list_of_objects(_object(description).get("fields"))
    if not _AVRO_NAME.fullmatch(name):
        raise _UnknownFormError
    if all(field.get("name") != name for field in fields):
        fields.append({"name": name, "type": ["null", "double"], "default": None})


_JSON_DESCRIPTIONS: dict[bytes, Callable[[Any, str], None]] = {
    b"org.apache.spark.sql.parquet.row.metadata": _in_spark_schema,
    b"huggingface": _in_features,
    b"pandas": _in_pandas,
    b"parquet.avro.schema": _in_avro_schema,
    b"avro.schema": _in_avro_schema,
}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _UnknownFormError
    return value


def _list_of_objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
        raise _UnknownFormError
    return value
