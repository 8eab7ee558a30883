"""Examples that may not be kept: those that stand in given files, word for word.

Held-out rows of a study, or an evaluation set. An example is known by its digest, so that its
copies are excluded too, whatever file or format they are in. Plain arrays and tables: no Ray, no
scores.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.formats import Format
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.rows import BadLine, rows_of

_DIGEST = pa.binary(16)
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class ExcludedFiles:
    """Files whose examples may not be kept.

    Attributes:
        corpus: The files.
        format: How their rows hold examples.
    """

    corpus: Corpus
    format: Format


@dataclass(frozen=True)
class DigestSet:
    """A set of examples.

    Attributes:
        digests: [n] the digests of the examples, 16 bytes each; some may occur several times.
        unread: Rows that hold no example, and exclude nothing.
    """

    digests: pa.FixedSizeBinaryArray
    unread: int = 0

    @classmethod
    def of(cls, row_format: Format, tables: Iterable[pa.Table]) -> "DigestSet":
        """The examples of rows, as `read_units` reads them."""
        digests = [digest for table in tables for digest in digests_of(row_format, table)]
        known = pa.array(digests, _DIGEST).drop_null()
        return cls(known, len(digests) - len(known))

    @classmethod
    def union(cls, sets: Iterable["DigestSet"]) -> "DigestSet":
        """The examples of several sets."""
        sets = list(sets)
        digests = pa.concat_arrays([pa.array([], _DIGEST), *(each.digests for each in sets)])
        return cls(pc.unique(digests), sum(each.unread for each in sets))

    def __len__(self) -> int:
        return len(pc.unique(self.digests))

    def __and__(self, other: "DigestSet") -> "DigestSet":
        """The examples that are in both sets."""
        is_common = pc.is_in(self.digests, other.digests)
        return DigestSet(pc.unique(self.digests.filter(is_common)))

    def contains(self, digests: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """[n] whether examples are in the set.

        Args:
            digests: [n, 2] the two halves of the digest of each example.
        """
        asked = pa.Array.from_buffers(
            _DIGEST, len(digests), [None, pa.py_buffer(np.ascontiguousarray(digests))]
        )
        found: NDArray[np.bool_] = pc.is_in(asked, self.digests).to_numpy(zero_copy_only=False)
        return found


def digests_of(row_format: Format, table: pa.Table) -> Iterator[bytes | None]:
    """The digest of each row's example; None where the row holds none."""
    return _of_examples(_digest, row_format, table)


def texts_of(row_format: Format, table: pa.Table) -> Iterator[str | None]:
    """The whole text of each row's example, in the plain rendering; None where it holds none."""
    return _of_examples(_text, row_format, table)


def _of_examples(
    make: Callable[[Example], _Made], row_format: Format, table: pa.Table
) -> Iterator[_Made | None]:
    for row in rows_of(table):
        example = row if isinstance(row, BadLine) else row_format.render(row)
        made = contained(make, example) if isinstance(example, Example) else None
        yield None if isinstance(made, Problem) else made


def _digest(example: Example) -> bytes:
    return example.digest


def _text(example: Example) -> str:
    return example.text
