import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.engine.batching import TokenBudgetBatches

lengths = st.lists(st.integers(1, 300), max_size=60)


@given(lengths, st.integers(1, 500))
def test_every_row_is_in_one_batch_and_batches_keep_the_budget(
    values: list[int], budget: int
) -> None:
    array = np.array(values, dtype=np.int64)
    batches = list(TokenBudgetBatches(array, budget))
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(values)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * array[batch].max() <= budget


def test_the_longest_come_first() -> None:
    batches = list(TokenBudgetBatches(np.array([1, 9, 5, 9]), 10))
    assert [list(map(int, batch)) for batch in batches] == [[1], [3], [2, 0]]


@given(lengths, st.integers(1, 500), st.integers(0, 10))
def test_a_budget_that_shrinks_on_the_way_holds_from_then_on(
    values: list[int], budget: int, at: int
) -> None:
    array = np.array(values, dtype=np.int64)
    batches = TokenBudgetBatches(array, budget)
    done: list[int] = []
    for number, batch in enumerate(batches):
        if number == at:
            batches.token_budget = budget // 2
        elif number > at:
            assert len(batch) == 1 or len(batch) * array[batch].max() <= budget // 2
        done.extend(int(i) for i in batch)
    assert sorted(done) == list(range(len(values)))
