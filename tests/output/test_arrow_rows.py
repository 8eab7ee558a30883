"""Rows picked out of batches of every Arrow type, at any depth of nesting."""

import datetime
import decimal
import functools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_ray.output.arrow_rows import filter_rows, take_rows, uncopyable

# For each type without children, an array of a given length; the seed makes it differ.
TEXTS = ["", "a", "längerer Text als zwölf Bytes", None, "b" * 40]
LEAVES = {
    "null": lambda n, at: pa.nulls(n),
    "bool": lambda n, at: pa.array([(i + at) % 3 == 0 for i in range(n)], pa.bool_()),
    "int8": lambda n, at: pa.array([(i * at) % 100 for i in range(n)], pa.int8()),
    "float16": lambda n, at: pa.array(np.arange(at, at + n, dtype=np.float16)),
    "duration": lambda n, at: pa.array(range(at, at + n), pa.duration("ms")),
    "interval": lambda n, at: pa.array(
        [(i, at, 1) for i in range(n)], pa.month_day_nano_interval()
    ),
    "timestamp": lambda n, at: pa.array(
        [datetime.datetime(9999, 1, 1 + (i + at) % 28) for i in range(n)],
        pa.timestamp("us", "UTC"),
    ),
    "fixed": lambda n, at: pa.array([bytes([i % 256, at]) for i in range(n)], pa.binary(2)),
    **{
        f"decimal{bits}": lambda n, at, make=make: pa.array(
            [decimal.Decimal((i + at) % 99) for i in range(n)], make(3, 0)
        )
        for bits, make in {
            32: pa.decimal32, 64: pa.decimal64, 128: pa.decimal128, 256: pa.decimal256
        }.items()
    },
    **{
        str(text_type): lambda n, at, text_type=text_type: pa.array(
            [TEXTS[(i * 3 + at) % 5] for i in range(n)], pa.string()
        ).cast(text_type)
        for text_type in (
            pa.string(), pa.large_string(), pa.string_view(),
            pa.binary(), pa.large_binary(), pa.binary_view(),
        )
    },
    "json": lambda n, at: pa.ExtensionArray.from_storage(
        pa.json_(pa.string()), pa.array([f'{{"a": {i + at}}}' for i in range(n)], pa.string())
    ),
    "uuid": lambda n, at: pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([bytes([i % 256, at]) * 8 for i in range(n)], pa.binary(16))
    ),
}  # fmt: skip


def offsets(sizes: list[int], count_type: pa.DataType) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(sizes)]), count_type)


def nulls(n: int, at: int) -> list[bool]:
    return [(i + at) % 4 == 3 for i in range(n)]


def validity(n: int, at: int) -> pa.Buffer:
    return pa.array([not null for null in nulls(n, at)] or [True]).buffers()[1]


@st.composite
def arrays(draw: st.DrawFn, length: int, depth: int) -> pa.Array:
    """An array of a random type, with `depth` types inside each other at most."""
    at = draw(st.integers(0, 9))
    if depth == 0 or draw(st.booleans()):
        return LEAVES[draw(st.sampled_from(sorted(LEAVES)))](length, at)
    inner = functools.partial(arrays, depth=depth - 1)
    kind = draw(st.sampled_from(
        ["list", "large_list", "list_view", "large_list_view", "fixed_list", "map", "struct",
         "sparse", "dense", "runs", "dictionary", "opaque"]
    ))  # fmt: skip
    sizes = [(i + at) % 3 for i in range(length)]
    begins = [sum(sizes[:i]) for i in range(length)]
    total = sum(sizes)
    is_nullable = draw(st.booleans())
    field_of = functools.partial(pa.field, nullable=True, metadata={"field": "its metadata"})
    bitmap = validity(length, at)
    if kind in ("list", "large_list"):
        values = draw(inner(total))
        make, count = (pa.list_, pa.int32()) if kind == "list" else (pa.large_list, pa.int64())
        buffers = [bitmap, offsets(sizes, count).buffers()[1]]
        return pa.Array.from_buffers(
            make(field_of("x", values.type)), length, buffers, children=[values]
        )
    if kind in ("list_view", "large_list_view"):
        values = draw(inner(total))
        make, count = (
            (pa.list_view, pa.int32()) if kind == "list_view" else (pa.large_list_view, pa.int64())
        )
        # Out of order, as only views may be.
        turned = begins[::-1], sizes[::-1]
        buffers = [bitmap, *(pa.array(part, count).buffers()[1] for part in turned)]
        return pa.Array.from_buffers(
            make(field_of("x", values.type)), length, buffers, children=[values]
        )
    if kind == "fixed_list":
        values = draw(inner(length * 2))
        list_type = pa.list_(field_of("x", values.type), 2)
        return pa.Array.from_buffers(list_type, length, [bitmap], children=[values])
    if kind == "map":
        keys, items = pa.array(map(str, range(total)), pa.string()), draw(inner(total))
        entry = pa.struct([pa.field("k", pa.string(), False), field_of("v", items.type)])
        entries = pa.Array.from_buffers(entry, total, [None], children=[keys, items])
        map_type = pa.map_(entry.field(0), entry.field(1))
        buffers = [bitmap, offsets(sizes, pa.int32()).buffers()[1]]
        return pa.Array.from_buffers(map_type, length, buffers, children=[entries])
    if kind == "struct":
        children = [draw(inner(length)) for _ in range(draw(st.integers(1, 2)))]
        # Twice the same name: struct fields go by place.
        struct = pa.struct([field_of("x", child.type) for child in children])
        return pa.Array.from_buffers(
            struct, length, [bitmap if is_nullable else None], children=children
        )
    if kind in ("sparse", "dense"):
        codes = np.array([5 if (i + at) % 3 else 2 for i in range(length)], np.int8)
        counts = [length, length] if kind == "sparse" else [(codes == c).sum() for c in (2, 5)]
        children = [draw(inner(int(n))) for n in counts]
        fields = [field_of(f"f{i}", child.type) for i, child in enumerate(children)]
        buffers = [None, pa.py_buffer(codes)]
        if kind == "dense":
            at_child = np.zeros(length, np.int32)
            for code in (2, 5):
                at_child[codes == code] = np.arange((codes == code).sum())
            buffers.append(pa.py_buffer(at_child))
        union = pa.union(fields, kind, [2, 5])
        return pa.Array.from_buffers(union, length, buffers, children=children)
    if kind == "runs":
        ends = [end for end in range(1, length + 1) if end % (1 + at % 3) == 0 or end == length]
        run_type = draw(st.sampled_from([pa.int16(), pa.int32(), pa.int64()]))
        return pa.RunEndEncodedArray.from_arrays(pa.array(ends, run_type), draw(inner(len(ends))))
    if kind == "dictionary":
        values = draw(inner(3))
        chosen = [None if null else (i + at) % 3 for i, null in enumerate(nulls(length, at))]
        indices = pa.array(chosen, draw(st.sampled_from([pa.int8(), pa.uint32()])))
        return pa.DictionaryArray.from_arrays(indices, values, ordered=is_nullable)
    storage = draw(inner(length))
    if isinstance(storage.type, pa.BaseExtensionType):
        return storage  # Arrow's own check of an array aborts for one extension inside another
    return pa.ExtensionArray.from_storage(pa.opaque(storage.type, "name", "vendor"), storage)


def cells(batch: pa.RecordBatch) -> list[object]:
    """Each row as something that compares by value, whatever the type."""
    column = batch.column(0)
    return [plain(column, i) for i in range(len(column))]


def plain(array: pa.Array, i: int) -> object:
    """A value as nested lists, read without `take`, `filter` or the code under test."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(array.storage, i)
    if pa.types.is_union(kind):
        buffers = array.buffers()  # because `type_codes` forgets where a slice begins
        code = np.frombuffer(buffers[1], np.int8)[array.offset + i]
        child = kind.type_codes.index(code)
        is_dense = kind.mode == "dense"
        at = int(np.frombuffer(buffers[2], np.int32)[array.offset + i]) if is_dense else i
        return code, plain(array.field(child), at)
    if pa.types.is_run_end_encoded(kind):
        run = next(n for n, end in enumerate(array.run_ends.to_pylist()) if end > i + array.offset)
        return plain(array.values, run)
    if not array[i].is_valid:
        return None
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary, array.indices[i].as_py())
    if pa.types.is_struct(kind):
        return [plain(array.field(n), i) for n in range(kind.num_fields)]
    if pa.types.is_map(kind):
        span = range(array.offsets[i].as_py(), array.offsets[i + 1].as_py())
        return [(plain(array.keys, n), plain(array.items, n)) for n in span]
    if kind.num_fields:  # lists of every kind
        values = array[i].values
        return [plain(values, n) for n in range(len(values))]
    return array[i].as_py()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_picked_rows_have_the_values_and_the_type_they_had(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 12))
    column = data.draw(arrays(length, 3))
    # The middle of a larger array: what is picked must not depend on where its memory begins.
    start = data.draw(st.integers(0, length))
    field = pa.field("a", column.type, metadata={"b": "c"})
    schema = pa.schema([field], metadata={"d": "e"})
    batch = pa.RecordBatch.from_arrays([column], schema=schema).slice(start)
    assert not uncopyable(schema)
    bits = data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch)))
    mask = np.array(bits, bool)
    before = cells(batch)

    kept = filter_rows(batch, mask)
    kept.validate(full=True)
    assert kept.schema.equals(schema, check_metadata=True)
    assert cells(kept) == [before[i] for i in np.flatnonzero(mask)]

    order = data.draw(st.permutations(range(len(batch))))
    cut = data.draw(st.integers(0, len(batch)))
    table = pa.Table.from_batches([batch.slice(0, cut), batch.slice(cut)])
    taken = take_rows(table, np.array(order, np.int64))
    taken.validate(full=True)
    assert taken.schema.equals(schema, check_metadata=True)
    read = [cell for part in taken.to_batches() for cell in cells(part)]
    assert read == [before[i] for i in order]


def test_text_that_is_not_utf8_is_picked_as_it_is() -> None:
    stored = pa.array([b"\xff" * 20, b"b", b"\xfe" * 20], pa.binary_view())
    text = pa.Array.from_buffers(pa.string_view(), 3, stored.buffers())
    kept = filter_rows(pa.record_batch({"a": text}), np.array([True, False, True]))
    assert kept["a"].cast(pa.binary_view()).to_pylist() == [b"\xff" * 20, b"\xfe" * 20]


def test_picked_views_leave_the_other_text_behind() -> None:
    batch = pa.record_batch({"a": pa.array(["x" * 1000] * 1000, pa.string_view())})
    kept = filter_rows(batch, np.arange(1000) < 3)
    assert sum(buffer.size for buffer in kept["a"].buffers() if buffer) < 4000


def test_more_rows_than_one_batch_can_count_come_in_several() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([30_000], pa.int16()), ["a"])
    table = pa.Table.from_batches([pa.record_batch({"a": runs})] * 2)
    taken = take_rows(table, np.arange(60_000)[::-1])
    assert taken.num_rows == 60_000
    assert max(len(chunk) for chunk in taken["a"].chunks) < 1 << 15


@pytest.mark.parametrize("code", [b"tiM", b"tiD"])
def test_a_type_that_python_cannot_hold_is_named(code: bytes) -> None:
    import ctypes

    class CSchema(ctypes.Structure):
        """Arrow's C data interface: the one way to such a type in Python."""

    release = ctypes.CFUNCTYPE(None, ctypes.POINTER(CSchema))
    CSchema._fields_ = [
        ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p),
        ("flags", ctypes.c_int64), ("n_children", ctypes.c_int64), ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p), ("release", release), ("private", ctypes.c_void_p),
    ]  # fmt: skip
    done = release(lambda pointer: setattr(pointer.contents, "release", release()))
    made = CSchema(code, b"x", None, 2, 0, None, None, done, None)
    field = pa.Field._import_from_c(ctypes.addressof(made))
    schema = pa.schema([("good", pa.string_view()), ("bad", pa.list_(field))])
    (reason,) = uncopyable(schema)
    assert reason.startswith("column 'bad' is list<x: ")
    assert "cannot copy the type" in reason
