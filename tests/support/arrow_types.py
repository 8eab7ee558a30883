"""Arrow arrays of random types, nested in each other, and their values without Arrow's kernels."""

import ctypes
import datetime
import decimal
import functools

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

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
        if isinstance(values.type, (pa.BaseExtensionType, pa.DictionaryType)):
            values = LEAVES["string_view"](3, at)  # IPC cannot store dictionaries of these
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


def interval_field(name: str, unit: str) -> pa.Field:
    """A column of "months" or "days", types that pyarrow reads but has no class for.

    Arrow's C data interface is the one way to such a type in Python.
    """

    class CSchema(ctypes.Structure):
        pass

    release = ctypes.CFUNCTYPE(None, ctypes.POINTER(CSchema))
    CSchema._fields_ = [
        ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p),
        ("flags", ctypes.c_int64), ("n_children", ctypes.c_int64), ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p), ("release", release), ("private", ctypes.c_void_p),
    ]  # fmt: skip
    done = release(lambda pointer: setattr(pointer.contents, "release", release()))
    code = {"months": b"tiM", "days": b"tiD"}[unit]
    made = CSchema(code, name.encode(), None, 2, 0, None, None, done, None)
    return pa.Field._import_from_c(ctypes.addressof(made))
