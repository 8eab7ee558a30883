"""One more column in the descriptions that Spark, pandas, `datasets`, Avro and Arrow write."""

import base64
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Value

from sf_ray.output.writers.column_descriptions import (
    ARROW_SCHEMA,
    describe_double_column,
    with_double_column,
)

SPARK = b"org.apache.spark.sql.parquet.row.metadata"


def described(key: bytes, value: object) -> object:
    """The description after the column was added, as a Python value."""
    return json.loads(describe_double_column(key, json.dumps(value).encode(), "ifd"))


def test_spark_sees_a_nullable_double_at_the_end_and_no_other_byte_changes() -> None:
    text = '{"type":"struct","fields":[{"name":"é","type":"long","nullable":true,"metadata":{}}]}'
    field = ',{"name":"ifd","type":"double","nullable":true,"metadata":{}}'
    assert describe_double_column(SPARK, text.encode(), "ifd").decode() == (
        text[:-2] + field + text[-2:]
    )


def test_avro_sees_an_optional_double_unless_the_name_is_none_of_avros() -> None:
    record = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "string"}]}
    added = {"name": "ifd", "type": ["null", "double"], "default": None}
    wanted = {**record, "fields": [*record["fields"], added]}
    assert described(b"parquet.avro.schema", record) == wanted
    text = json.dumps(record).encode()
    assert describe_double_column(b"avro.schema", text, "i-f-d") == text


@pytest.mark.parametrize("features", [{"a": {"dtype": "string", "_type": "Value"}}, None])
def test_datasets_features_name_the_column_and_no_fingerprint(features: object) -> None:
    metadata = {"info": {"features": features}, "fingerprint": "1234"}
    added = {"ifd": {"dtype": "float64", "_type": "Value"}}
    wanted = {**features, **added} if isinstance(features, dict) else None
    assert described(b"huggingface", metadata) == {"info": {"features": wanted}}


def test_features_as_a_list_stay_a_list() -> None:
    metadata = {"info": {"features": [{"name": "a", "dtype": "string"}]}}
    wanted = [{"name": "a", "dtype": "string"}, {"name": "ifd", "dtype": "float64"}]
    assert described(b"huggingface", metadata) == {"info": {"features": wanted}}


def test_datasets_reads_its_own_features_and_the_column() -> None:
    features = Features({"a": Value("large_string"), "label": ClassLabel(names=["x", "y"])})
    schema = features.arrow_schema
    metadata = with_double_column(schema.metadata, "ifd")
    read = Features.from_arrow_schema(
        schema.append(pa.field("ifd", pa.float64())).with_metadata(metadata)
    )
    assert read == {**features, "ifd": Value("float64")}
    assert "ifd" in json.loads((metadata or {})[b"huggingface"])["info"]["features"]


@pytest.mark.parametrize(
    "columns",
    [
        ["a", "b"],
        [0, 1],
        pd.to_datetime(["2020-01-01", "2021-01-01"]),
        pd.CategoricalIndex(["a", "b"]),
        pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]),
        pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]),
        pd.Index(["a", "b"], name="labels"),
    ],
    ids=["text", "numbers", "dates", "categories", "levels", "level_of_numbers", "named"],
)
@pytest.mark.parametrize(
    "index", [None, pd.Index([5, 3, 1], name="k"), pd.RangeIndex(5, 11, 2)],
    ids=["default", "named", "range"],
)  # fmt: skip
def test_pandas_reads_its_frame_and_the_column(columns: object, index: object) -> None:
    frame = pd.DataFrame([["x", 1], ["y", 2], ["z", 3]], columns=columns, index=index)
    table = pa.Table.from_pandas(frame)
    metadata = with_double_column(table.schema.metadata, "ifd")
    table = table.append_column("ifd", pa.array([0.1, 0.2, 0.3])).replace_schema_metadata(metadata)
    file = io.BytesIO()
    pq.write_table(table, file)
    read = pd.read_parquet(file)
    assert list(read.iloc[:, -1]) == [0.1, 0.2, 0.3]
    assert read.columns.nlevels == frame.columns.nlevels
    assert "ifd" in str(read.columns[-1])
    assert list(read.dtypes)[:-1] == list(frame.dtypes)
    assert read.index.equals(frame.index)
    assert read.columns.names == frame.columns.names
    pd.testing.assert_frame_equal(
        read.iloc[:, :-1].set_axis(["a", "b"], axis=1), frame.set_axis(["a", "b"], axis=1)
    )


def test_arrows_schema_gets_the_column_and_so_does_the_metadata_inside() -> None:
    features = json.dumps({"info": {"features": {}}}).encode()
    schema = pa.schema(
        [
            pa.field("a", pa.dictionary(pa.int8(), pa.string()), False, {b"k": b"v"}),
            pa.field("b", pa.list_(pa.field("x", pa.string_view()))),
        ],
        metadata={b"huggingface": features, b"other": b"\xff"},
    )
    text = base64.b64encode(schema.serialize().to_pybytes())
    read = pa.ipc.read_schema(
        pa.py_buffer(base64.b64decode(describe_double_column(ARROW_SCHEMA, text, "ifd")))
    )
    wanted = schema.append(pa.field("ifd", pa.float64())).with_metadata(
        with_double_column(schema.metadata, "ifd")
    )
    assert read.equals(wanted, check_metadata=True)
    assert b'"ifd"' in read.metadata[b"huggingface"]


@pytest.mark.parametrize("key", [SPARK, b"huggingface", b"pandas", b"avro.schema", ARROW_SCHEMA])
@pytest.mark.parametrize(
    "value", [b"", b"StructType(List())", b"[]", b"{}", b'{"fields": [1]}', b"\xff", b"[" * 100_000]
)
def test_a_description_that_cannot_be_read_stays(key: bytes, value: bytes) -> None:
    assert describe_double_column(key, value, "ifd") == value


def test_a_column_that_is_described_already_is_not_described_twice() -> None:
    metadata: dict[bytes, bytes] = {
        SPARK: b'{"type":"struct","fields":[]}',
        b"huggingface": b'{"info": {"features": {}}}',
        b"pandas": b'{"columns": []}',
        b"avro.schema": b'{"fields":[]}',
        ARROW_SCHEMA: base64.b64encode(pa.schema([]).serialize().to_pybytes()),
    }
    once = with_double_column(metadata, "ifd")
    assert once is not None
    assert all(once[key] != metadata[key] for key in metadata)
    assert with_double_column(once, "ifd") == once


def test_other_keys_and_no_metadata_stay() -> None:
    assert with_double_column({b"k": b"{}"}, "ifd") == {b"k": b"{}"}
    assert with_double_column(None, "ifd") is None
