from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from bench.support.mutants import use
from sf_ray.corpus.readers.arrow_checks import check_batch, check_schema
from sf_ray.errors import BadShardError
from tests.support.arrow_types import arrays

ROWS = 40


@given(array=arrays(ROWS, depth=3))
def test_every_sound_array_passes(array: pa.Array) -> None:
    check_batch(pa.record_batch([array], ["a"]))


def texts_with_offset(offset: int, is_null: bool = False) -> pa.Array:
    """Texts of which one ends at `offset`: neither the first nor the last, which Arrow looks at."""
    good = pa.array([f"answer {i}" for i in range(ROWS)])
    offsets = np.frombuffer(good.buffers()[1], np.int32)[: ROWS + 1].copy()
    offsets[20] = offset
    valid = np.ones(ROWS, bool)
    valid[20] = not is_null
    bits = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    return pa.StringArray.from_buffers(
        ROWS, pa.py_buffer(offsets.tobytes()), good.buffers()[2], bits
    )


def dictionary_with_index(index: int, words: pa.Array) -> pa.Array:
    indices = pa.array([0] * (ROWS - 1) + [index], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, words, safe=False)


def unsound() -> dict[str, pa.Array]:
    text = texts_with_offset(3_000_000, is_null=True)
    lists = pa.Array.from_buffers(
        pa.list_(pa.int8()),
        2,
        [None, pa.array([0, 1000, 2], pa.int32()).buffers()[1]],
        children=[pa.array([1, 2], pa.int8())],
    )
    views = pa.Array.from_buffers(
        pa.list_view(pa.int8()),
        1,
        [None, pa.array([1], pa.int32()).buffers()[1], pa.array([9], pa.int32()).buffers()[1]],
        children=[pa.array([1, 2], pa.int8())],
    )
    view = np.array([100, 0, 7, 0], np.int32).tobytes()  # of a buffer that is not there
    bad_text = pa.array([b"\xff"] * ROWS).view(pa.string())
    return {
        "text": text,
        "text that is null": texts_with_offset(2_000_000_000),
        "text in a struct": pa.StructArray.from_arrays([text], ["a"]),
        "text in a list": pa.ListArray.from_arrays([0, ROWS], text),
        "text in a dictionary": dictionary_with_index(0, text),
        "index of a dictionary": dictionary_with_index(9, pa.array(["a"])),
        "index, of text that is no UTF-8": dictionary_with_index(99, bad_text),
        "list": lists,
        "list view": views,
        "text view": pa.Array.from_buffers(pa.string_view(), 1, [None, pa.py_buffer(view)]),
        "dense union": pa.Array.from_buffers(
            pa.dense_union([pa.field("a", pa.int8())]),
            1,
            [None, pa.py_buffer(b"\0"), pa.array([77], pa.int32()).buffers()[1]],
            children=[pa.array([1], pa.int8())],
        ),
    }


@pytest.mark.parametrize("name", sorted(unsound()))
def test_a_value_outside_of_its_buffer_is_refused_before_it_is_read(name: str) -> None:
    array = unsound()[name]
    odd = pa.array([b"\xff"] * len(array)).view(pa.string())  # a fault that is told first
    for columns in ([array], [odd, array]):
        with pytest.raises(pa.ArrowInvalid):
            check_batch(pa.record_batch(columns, [str(i) for i in range(len(columns))]))


def test_odd_values_pass() -> None:
    day = 86_400_000
    columns = {
        "no UTF-8": pa.array([b"\xff", b"a"]).view(pa.string()),
        "no UTF-8 in lists": pa.ListArray.from_arrays(
            [0, 1, 2], pa.array([b"\xff", b"a"]).view(pa.string())
        ),
        "half a day": pa.array([day // 2, day]).view(pa.date64()),
        "a time past midnight": pa.array([2 * day, 0], pa.int32()).view(pa.time32("ms")),
    }
    check_batch(pa.record_batch(list(columns.values()), list(columns)))


@pytest.mark.parametrize("offset", [3_000_000, 2_000_000_000])
@pytest.mark.parametrize("is_file", [False, True])
def test_no_memory_of_the_process_becomes_text(tmp_path: Path, offset: int, is_file: bool) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    output = texts_with_offset(offset, is_null=offset < 1 << 30)
    batch = pa.record_batch([output, output], ["instruction", "output"])
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with new(folder / "a.arrow", batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(BadShardError, match=r"a\.arrow: cannot be read"):
        use(folder / "a.arrow")


def test_types_that_nest_without_end_are_refused() -> None:
    deep = pa.int8()
    for _ in range(70):
        deep = pa.list_(deep)
    with pytest.raises(pa.ArrowInvalid, match="nested over 64 levels"):
        check_schema(pa.schema([("a", deep)]))
