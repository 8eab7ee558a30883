"""Texts -> token ids in flat arrays, by the model's own tokenizer.

Knows no messages and no template. `fast_text_encoder` does the same in less time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sf_ray.engine.sequences import Ints, offsets
from sf_ray.errors import SfRayError, first_line


@dataclass(frozen=True)
class TokenLists:
    """The token ids of n texts, one text after the other.

    Attributes:
        ids: [tokens] int32 ids of all texts.
        starts: [n + 1] where the ids of each text begin; the last is the end.
    """

    ids: NDArray[np.int32]
    starts: Ints

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "TokenLists":
        """Copies lists of ids into flat arrays."""
        starts = offsets([len(ids) for ids in lists])
        return cls(np.fromiter(chain(*lists), np.int32, starts[-1]), starts)

    def part(self, index: int) -> NDArray[np.int32]:
        """The ids of one text."""
        return self.ids[self.starts[index] : self.starts[index + 1]]


class TextEncoder(Protocol):
    """Encodes texts, each in one piece, with the tokenizer's own special tokens around it.

    Text that looks like a special token becomes that token.
    """

    def encode(self, texts: Sequence[str]) -> TokenLists:
        """The ids of texts, in order."""


class PlainTextEncoder:
    """Encodes with `tokenizers`, which transformers and the paper's code use: the definition."""

    def __init__(self, backend: Any) -> None:
        """
        Args:
            backend: From `backend_of`.
        """
        self._backend = backend

    def encode(self, texts: Sequence[str]) -> TokenLists:
        """See `TextEncoder`."""
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=True)
        except BaseException as error:  # noqa: BLE001 - may be anything, see below
            raise_unless_refusal(error)
            raise ValueError(f"the tokenizer refuses it: {first_line(error)}") from None
        return TokenLists.of([encoding.ids for encoding in encodings])


def raise_unless_refusal(error: BaseException) -> None:
    """Raises what is no refusal to encode: an interrupt, or the end of the process.

    A panic of Rust code is a BaseException too, of a class that cannot be imported.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def backend_of(tokenizer: Any) -> Any:
    """The `tokenizers` object of a tokenizer, which from now on neither truncates nor pads.

    Args:
        tokenizer: A fast tokenizer of transformers.

    Raises:
        SfRayError: The tokenizer is not a fast one.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise SfRayError(
            f"the model's tokenizer ({type(tokenizer).__name__}) has no fast version: "
            "convert it to a tokenizer.json, or choose a model that has one"
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend
