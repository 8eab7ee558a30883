import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.batching import TokenBudgetBatches

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


@given(lengths.filter(bool), st.integers(1, 500), st.sets(st.integers(0, 10)))
def test_a_batch_that_does_not_fit_returns_in_pieces(
    values: list[int], budget: int, fails_at: set[int]
) -> None:
    batches = TokenBudgetBatches(np.array(values, dtype=np.int64), budget)
    done: list[int] = []
    for number, batch in enumerate(batches):
        if number in fails_at and len(batch) > 1:
            before = batches.token_budget
            batches.split(batch)
            assert batches.token_budget < before
        else:
            done.extend(int(i) for i in batch)
    assert sorted(done) == list(range(len(values)))
