import pyarrow as pa
import pytest

from sf_ray.errors import SfRayError
from sf_ray.output.writers.arrow_dictionaries import join_batches, with_one_dictionary


def batch(values: list[object], is_nested: bool = False, ordered: bool = False) -> pa.RecordBatch:
    """Each value of a dictionary once, in one column."""
    indices = pa.array(range(len(values)), pa.int8())
    array = pa.DictionaryArray.from_arrays(indices, pa.array(values), ordered=ordered)
    if is_nested:
        runs = pa.RunEndEncodedArray.from_arrays(range(1, len(array) + 1), array)
        union = pa.UnionArray.from_sparse(pa.array([0] * len(array), pa.int8()), [runs])
        lists = pa.ListArray.from_arrays(range(len(array) + 1), union)
        keys = pa.array(["k"] * len(array))
        maps = pa.MapArray.from_arrays(range(len(array) + 1), keys, lists)
        array = pa.ExtensionArray.from_storage(pa.opaque(maps.type, "a", "b"), maps)
    return pa.record_batch({"other": range(len(array)), "a": array})


@pytest.mark.parametrize("is_nested", [False, True])
def test_batches_with_equal_dictionaries_are_joined(is_nested: bool) -> None:
    batches = [batch(["a", "b"], is_nested), batch(["a", "b"], is_nested)]
    (joined,) = join_batches(batches)
    assert joined.num_rows == 4
    assert with_one_dictionary(pa.Table.from_batches(batches)).num_rows == 4


def test_a_dictionary_that_holds_nan_equals_itself() -> None:
    (joined,) = join_batches([batch([float("nan"), 1.0])] * 2)
    assert joined.num_rows == 4


@pytest.mark.parametrize("is_nested", [False, True])
def test_batches_with_other_dictionaries_stay_as_they_are(is_nested: bool) -> None:
    batches = [batch(values, is_nested, ordered=True) for values in (["a", "b"], ["b", "a"])]
    assert join_batches(batches) == batches


def test_batches_that_are_too_much_for_one_stay_apart() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([30_000], pa.int16()), ["a"])
    batches = [pa.record_batch({"a": runs})] * 2
    assert join_batches(batches) == batches
    assert join_batches([]) == []


def test_rows_of_several_dictionaries_get_one() -> None:
    table = pa.Table.from_batches([batch(["a", "b"]), batch(["c"])])
    one = with_one_dictionary(table)
    assert one["a"].to_pylist() == ["a", "b", "c"]
    assert [chunk.dictionary.to_pylist() for chunk in one["a"].chunks] == [["a", "b", "c"]] * 2


def test_dictionaries_that_do_not_fit_into_one_are_an_error_with_a_way_out() -> None:
    values = [[f"{at}{n}" for n in range(100)] for at in "ab"]
    table = pa.Table.from_batches([batch(part) for part in values])
    with pytest.raises(SfRayError, match=r"column 'a' differ .* use --order input: no row is sco"):
        with_one_dictionary(table)
