"""Token losses -> the tokens that count: what `selective_ifd` counts is counted in Ray tasks."""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sf_ray.errors import SfRayError
from sf_ray.scoring.token_losses import read_token_losses
from sf_ray.selection.chunks import Chunk
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.score_range import BINS, ScoreRange, SparseCounts
from sf_ray.selection.selective_ifd import (
    Nats,
    SelectedTokens,
    count_tokens,
    find_threshold,
    tokens_in,
)
from sf_ray.storage.location import Location


def select_tokens(
    corpus_pass: CorpusPass, chunks: Sequence[Chunk], scores: Location, share: float
) -> SelectedTokens:
    """Finds the threshold that a share of all tokens of a corpus reaches.

    All rows with a score take part, whether or not they may be kept: so the threshold is the same
    for every quota, bound and arm. A task holds the tokens of a few units, the driver counts in
    bins.

    Args:
        corpus_pass: How to go over the corpus.
        chunks: The whole corpus.
        scores: The folder of the score pieces.
        share: The share of the tokens that is to count.

    Raises:
        SfRayError: Token losses cannot be read, or no row has any.
    """

    def count(token_range: ScoreRange) -> NDArray[np.int64]:
        counts = np.zeros(BINS, np.int64)
        task = functools.partial(_count, scores, token_range)
        for bins, tokens in corpus_pass.over(task, chunks):
            counts[bins] += tokens
        return counts

    def gather(token_range: ScoreRange) -> Nats:
        task = functools.partial(_gather, scores, token_range)
        return np.concatenate(list(corpus_pass.over(task, chunks)))

    selected = find_threshold(share, count, gather)
    if selected is None:
        raise SfRayError(
            f"{scores.public_uri}: no row has a token that both passes score, so none has an "
            "S-IFD; rank by another score"
        )
    return selected


def _count(scores: Location, token_range: ScoreRange, chunk: Chunk) -> SparseCounts:
    counts = np.zeros(BINS, np.int64)
    for unit in read_token_losses(scores, chunk.places):
        counts += count_tokens(token_range, unit.nats)
    occur = np.flatnonzero(counts)
    return SparseCounts(occur, counts[occur])


def _gather(scores: Location, token_range: ScoreRange, chunk: Chunk) -> Nats:
    of_units = read_token_losses(scores, chunk.places)
    return np.concatenate([tokens_in(token_range, unit.nats) for unit in of_units])
