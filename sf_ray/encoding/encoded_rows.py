"""Encoded rows: one as an object, many as flat arrays. Knows no tokenizer and no Arrow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.status import Status
from sf_ray.engine.sequences import Ints, TokenSequence, TokenSequences, offsets


@dataclass(frozen=True)
class EncodedRow:
    """A row ready for the engine.

    Attributes:
        status: `ok`, or why the row has no score.
        prompt_tokens: Tokens that are fed as prompt; None where the row did not render.
        answer_tokens: Scored tokens of the conditioned passes; None where the row did not render.
        truncated: Whether the window cut an answer or left no room for it.
        conditioned: Sequences of the conditioned passes, mostly one. The spans of all of them, in
            order, are those of the turns.
        direct: One sequence for each turn: the answer on its own.
        digest: [16] bytes that copies of the example share; None where the row did not render.
        reason: Why the row did not render, for people; "" where it did.
    """

    status: Status
    prompt_tokens: int | None
    answer_tokens: int | None
    truncated: bool
    conditioned: tuple[TokenSequence, ...] = ()
    direct: tuple[TokenSequence, ...] = ()
    digest: bytes | None = None
    reason: str = ""


@dataclass(frozen=True)
class EncodedRows:
    """n rows ready for the engine, in flat arrays.

    Attributes:
        statuses: [n] as `EncodedRow.status`.
        rendered: [n] whether the row rendered.
        prompt_tokens, answer_tokens: [n] as in `EncodedRow`; 0 where the row did not render.
        truncated: [n] as in `EncodedRow`.
        sequences: For each row, the sequences of its conditioned passes, then the direct ones.
        starts: [n + 1] where the sequences of each row begin; the last is the end.
        turns: [n] turns of each row, so many of its last sequences are direct ones.
        digests: [n] as `EncodedRow.digest`.
        reasons: Index of a row -> why it did not render.
    """

    statuses: Sequence[Status]
    rendered: NDArray[np.bool_]
    prompt_tokens: Ints
    answer_tokens: Ints
    truncated: NDArray[np.bool_]
    sequences: TokenSequences
    starts: Ints
    turns: Ints
    digests: Sequence[bytes | None]
    reasons: Mapping[int, str]

    @classmethod
    def of(cls, rows: Sequence[EncodedRow]) -> "EncodedRows":
        """Copies rows into flat arrays."""
        return cls(
            [row.status for row in rows],
            np.array([row.prompt_tokens is not None for row in rows], bool),
            np.array([row.prompt_tokens or 0 for row in rows], np.int64),
            np.array([row.answer_tokens or 0 for row in rows], np.int64),
            np.array([row.truncated for row in rows], bool),
            TokenSequences.of(list(chain(*((*row.conditioned, *row.direct) for row in rows)))),
            offsets([len(row.conditioned) + len(row.direct) for row in rows]),
            np.array([len(row.direct) for row in rows], np.int64),
            [row.digest for row in rows],
            {i: row.reason for i, row in enumerate(rows) if row.reason},
        )

    def __len__(self) -> int:
        return len(self.statuses)

    def __iter__(self) -> Iterator[EncodedRow]:
        """Makes an object of each row, for code that need not be fast."""
        sequences = list(self.sequences)
        for i, (start, stop) in enumerate(pairwise(self.starts.tolist())):
            direct = stop - int(self.turns[i])
            yield EncodedRow(
                self.statuses[i],
                int(self.prompt_tokens[i]) if self.rendered[i] else None,
                int(self.answer_tokens[i]) if self.rendered[i] else None,
                bool(self.truncated[i]),
                tuple(sequences[start:direct]),
                tuple(sequences[direct:stop]),
                self.digests[i],
                self.reasons.get(i, ""),
            )
