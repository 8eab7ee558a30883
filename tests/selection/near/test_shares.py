"""What a task sends to a part is too large for the driver's memory, however large the corpus is."""

import pytest

from sf_ray.selection.near import embedding_tasks, text_tasks

# Ray sends smaller results to the driver.
INLINE_BYTES = 100 * 1024
UNIT_ROWS = 2048


@pytest.mark.parametrize("rows", [10**6, 10**7, 10**8, 10**9])
def test_shares_of_a_bin_stay_in_the_object_store(rows: int) -> None:
    units = -(-rows // UNIT_ROWS)
    tasks = -(-units // embedding_tasks.units_a_task(units, rows))
    bin_bytes = embedding_tasks._BIN_ROWS * 384 * 2
    assert bin_bytes / tasks > INLINE_BYTES


@pytest.mark.parametrize("rows", [10**6, 10**7, 10**8, 10**9])
def test_shares_of_a_part_of_keys_stay_in_the_object_store(rows: int) -> None:
    units = -(-rows // UNIT_ROWS)
    tasks = -(-units // text_tasks.units_a_task(units))
    assert text_tasks._PART_BYTES / tasks > INLINE_BYTES


def test_small_corpora_are_cut_by_rows() -> None:
    assert embedding_tasks.units_a_task(units=1000, eligible_rows=1000 * UNIT_ROWS) == 32
    assert embedding_tasks.units_a_task(units=1000, eligible_rows=1) == 256
    assert text_tasks.units_a_task(units=1000) == 16
