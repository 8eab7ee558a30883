"""Losses of batches on their way to the host, and what they add up to.

Knows no model. On CUDA the losses of a batch are copied behind it, so that whoever waits for them
waits for nothing that the device was given later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.sequences import Ints


@dataclass(frozen=True)
class Part:
    """[n] losses of a batch in nats, each of one token.

    Attributes:
        spans: [n] the span that each belongs to.
    """

    spans: Ints
    _nll: torch.Tensor
    _copied: torch.cuda.Event | None

    @classmethod
    def of(cls, spans: Ints, nll: torch.Tensor) -> "Part":
        """Begins to copy them to the host."""
        if not nll.is_cuda:
            return cls(spans, nll, None)
        on_host = nll.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return cls(spans, on_host, copied)

    def nll(self) -> torch.Tensor:
        """The losses; waits until they are there."""
        if self._copied:
            self._copied.synchronize()
        return self._nll


def sum_spans(parts: Sequence[Part], size: int = 0) -> NDArray[np.float64]:
    """The sum of each span's losses, in nats. Waits for them; always adds in the same order.

    Args:
        parts: Of all batches.
        size: How many spans there are, at least.
    """
    if not parts:
        return np.zeros(size)
    nll = torch.cat([part.nll() for part in parts]).double().numpy()
    where = np.concatenate([part.spans for part in parts])
    return np.bincount(where, weights=nll, minlength=size).astype(np.float64, copy=False)
