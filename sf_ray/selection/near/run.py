"""`--drop-near-duplicates`: options and eligible rows -> the rows that are dropped."""

from dataclasses import replace
from typing import assert_never

import numpy as np

from sf_ray.config.selection_options import SelectionOptions
from sf_ray.runtime.log import say
from sf_ray.scoring.score_set import ScoreSet, count_units, format_of
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Eligible, Kept
from sf_ray.selection.cutoff_tasks import count_rows
from sf_ray.selection.cutoffs import Cutoff, first_ranges
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.diversity.embedding_run import embed_kept
from sf_ray.selection.diversity.embedding_set import embedding_set_of
from sf_ray.selection.near.embedding_tasks import (
    EligibleEmbeddings,
    find_near_by_embedding,
    units_a_task,
)
from sf_ray.selection.near.near_copies import NearCopies
from sf_ray.selection.near.text_tasks import EligibleTexts, find_near_by_text
from sf_ray.selection.ranking import GroupCutoff
from sf_ray.selection.selection import Selection
from sf_ray.selection.texts import CorpusTexts


def find_near_copies(
    options: SelectionOptions,
    selection: Selection,
    score_set: ScoreSet,
    embedder: EmbedderSpec | None,
) -> NearCopies:
    """The eligible rows that are dropped because a better one that is kept is near them.

    Args:
        options: Options of the run, with a threshold.
        selection: All eligible rows, in one group; see `everything_eligible`.
        score_set: Scores of all units of the corpus; embeddings are kept beside them.
        embedder: The encoder; None where texts are compared.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: The encoder cannot be loaded, or storage failed.
    """
    threshold = options.drop_near_duplicates
    assert threshold is not None, "asked for"
    if not selection.rows:
        return NearCopies(Bitmap.empty(selection.corpus.rows), 0, 0, None)
    if options.near_duplicates_by == "embedding":
        assert embedder is not None, "found before anything ran"
        found = _by_embedding(options, selection, score_set, embedder, threshold)
    elif options.near_duplicates_by == "text":
        found = _by_text(selection, score_set, threshold)
    else:
        assert_never(options.near_duplicates_by)
    _say(found)
    return found


def everything_eligible(selection: Selection, eligible: Eligible) -> Selection:
    """The same corpus with no cut-off: all eligible rows are kept, in one group.

    Args:
        selection: The corpus; its cut-offs are not looked at.
        eligible: Reads which rows may be kept.
    """
    rows = selection.corpus.rows
    ranges = first_ranges(eligible.within, rows, 1)
    corpus_pass = selection.corpus_pass.for_scores(selection.units)
    count = int(count_rows(corpus_pass, selection.chunks(), eligible, ranges).sum())
    last = Cutoff(-np.inf, rows)
    group = GroupCutoff("", rows, count, count, count, last)
    ranking = replace(selection.ranking, groups=(group,))
    return replace(selection, kept=Kept(eligible, ranking.cutoffs), ranking=ranking)


def _by_embedding(
    options: SelectionOptions,
    selection: Selection,
    score_set: ScoreSet,
    embedder: EmbedderSpec,
    threshold: float,
) -> NearCopies:
    row_format = format_of(score_set)
    target = embedding_set_of(score_set.location, embedder.model.fingerprint, row_format)
    embed_kept(options, selection, embedder, row_format, target)
    return find_near_by_embedding(
        selection.corpus_pass,
        selection.chunks(units_a_task(count_units(selection.units), selection.rows)),
        EligibleEmbeddings(selection.kept.eligible, target),
        selection.rows,
        selection.corpus.rows,
        threshold,
    )


def _by_text(selection: Selection, score_set: ScoreSet, threshold: float) -> NearCopies:
    texts = CorpusTexts(selection.corpus.location, format_of(score_set))
    return find_near_by_text(selection, EligibleTexts(selection.kept.eligible, texts, threshold))


def _say(found: NearCopies) -> None:
    sampled = found.sampled
    of_sample = (
        f"; of {sampled.rows:,} sampled rows {sampled.near:,} are near a better one, and for "
        f"{sampled.found:,} of these one was found"
        if sampled
        else ""
    )
    say(
        f"near copies: {len(found.rows):,} of {found.compared:,} eligible rows are near a better "
        f"one that is kept{of_sample}"
    )
