"""Options and scores -> the rows of a corpus that are kept.

The order of the steps: groups of a quota, excluded rows, overlaps with evaluation sets, duplicates,
near copies, cut-offs, diversity. Each step sees only the rows that the steps before it have left.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sf_ray.config.quotas import Quota, rows_to_keep
from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.runtime.log import WallTimes, timed
from sf_ray.scoring.bad_rows import check_bad_fraction, refuse_without_scores
from sf_ray.scoring.score_set import ScoreSet, ShardUnits, format_of
from sf_ray.selection.arms import Arm, arm_of
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Eligible, Grouping, Kept
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.criterion import BySelectiveIfd
from sf_ray.selection.cutoff_tasks import (
    count_lengths,
    count_rows,
    count_values,
    rank,
    rank_again,
)
from sf_ray.selection.cutoffs import Cutoffs, first_ranges
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.diversity.embedding_run import embed_kept
from sf_ray.selection.diversity.embedding_set import embedding_set_of
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.diversity.partition_tasks import diversify
from sf_ray.selection.duplicate_tasks import find_duplicates
from sf_ray.selection.excluded_tasks import find_excluded
from sf_ray.selection.group_column import column_of
from sf_ray.selection.lengths import share_out
from sf_ray.selection.near.overlap_tasks import find_overlaps
from sf_ray.selection.near.overlaps import Overlaps
from sf_ray.selection.near.run import everything_eligible, find_near_copies
from sf_ray.selection.ranking import GroupRequest, Ranking
from sf_ray.selection.read_tables import ReadTables
from sf_ray.selection.selection import Selection, SelectionInputs, either, rows_of
from sf_ray.selection.selective_ifd_tasks import select_tokens
from sf_ray.selection.texts import CorpusTexts


def select_rows(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    inputs: SelectionInputs = SelectionInputs(),  # noqa: B008 - frozen
) -> Selection:
    """Finds the cut-offs that the options ask for; `--diversify-to` is left to `with_diversity`.

    Args:
        options: Options of the run.
        corpus: The corpus.
        score_set: Scores of all units of the corpus.
        inputs: The encoder, and files whose examples may not be kept.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: Too many rows are bad, none has a score, or a column has too many values for a
            quota.
    """
    corpus_pass = CorpusPass(score_set.marks, options.on_bad_shard == "skip", options.stall_s)
    units = score_set.units(corpus)
    chunks = chunks_of(units)
    tokens, by_tokens = None, None
    if options.rank_by == "s-ifd":
        to_read = corpus_pass.for_scores(units)
        tokens = select_tokens(to_read, chunks, score_set.pieces, options.token_share)
        by_tokens = BySelectiveIfd(score_set.pieces, tokens.threshold_nats)
    arm = arm_of(options, by_tokens)
    if options.quota is None:
        grouping = None
        # Of so many tokens nobody knows how many rows they are: all, at first.
        keep = options.keep_count or options.keep_fraction or corpus.rows
        requests = [GroupRequest("", corpus.rows, rows_to_keep(corpus.rows, keep))]
    else:
        grouping, requests = _groups(options.quota, corpus, corpus_pass, chunks)
    dropped = _dropped(options, corpus, corpus_pass, units, score_set, arm, inputs)
    chunks = [chunk.without(dropped.rows) for chunk in chunks]
    eligible = Eligible(score_set.pieces, arm.ranked_within, arm.ranked_by, grouping)
    known = ReadTables.with_room(corpus.rows)
    to_rank = corpus_pass if grouping else corpus_pass.for_scores(units)
    ranking = rank(to_rank, chunks, corpus.rows, eligible, requests, known)
    row_format, statuses = format_of(score_set), ranking.status_counts
    check_bad_fraction(corpus, row_format, statuses, ranking.bad, options.max_bad_fraction)
    refuse_without_scores(corpus, row_format, statuses, ranking.bad, "rows")
    kept = Kept(eligible, ranking.cutoffs)
    selection = Selection(
        corpus, corpus_pass, units, kept, ranking, known=known, tokens=tokens, **dropped._asdict()
    )
    if options.drop_near_duplicates is not None:
        # After the ranking, which says that there is something to compare, and reads all scores.
        to_compare = Eligible(score_set.pieces, arm.bounds, arm.ranked_by)
        everything = everything_eligible(selection, to_compare)
        near = find_near_copies(options, everything, score_set, inputs.embedder)
        selection = replace(selection, near=near)
        ranking = rank_again(to_rank, selection.chunks(), corpus.rows, eligible, requests, ranking)
        kept = Kept(eligible, ranking.cutoffs)
    chunks = selection.chunks()
    if options.keep_tokens is not None:
        normalised = arm.by_length == "normalised"
        ranking = _with_tokens(to_rank, chunks, eligible, ranking, options.keep_tokens, normalised)
        kept = Kept(eligible, ranking.cutoffs)
        requests = [GroupRequest("", corpus.rows, ranking.kept)]
    if arm.by_length is not None:
        kept, ranking = _by_length(arm, to_rank, chunks, corpus.rows, kept, ranking, requests)
    return replace(selection, kept=kept, ranking=ranking)


class _Dropped(NamedTuple):
    """Rows that may not be kept, by why: as the attributes of `Selection` say."""

    duplicates: Bitmap | None
    excluded: Bitmap | None
    overlaps: Overlaps | None

    @property
    def rows(self) -> Bitmap | None:
        """All of them."""
        return either(self.duplicates, self.excluded, rows_of(self.overlaps))


def _dropped(
    options: SelectionOptions,
    corpus: Corpus,
    corpus_pass: CorpusPass,
    units: ShardUnits,
    score_set: ScoreSet,
    arm: Arm,
    inputs: SelectionInputs,
) -> _Dropped:
    """The rows that may not be kept: of excluded files, of evaluation sets, and copies."""
    excluded, overlaps, duplicates = None, None, None
    if inputs.excluded:
        excluded = find_excluded(corpus_pass, units, corpus.rows, score_set.pieces, inputs.excluded)
    if inputs.overlap_with:
        texts = CorpusTexts(corpus.location, format_of(score_set))
        overlaps = find_overlaps(corpus_pass, units, corpus.rows, texts, inputs.overlap_with)
    if options.drop_duplicates:
        eligible = Eligible(score_set.pieces, arm.bounds, arm.ranked_by)
        duplicates = find_duplicates(corpus_pass, units, corpus.rows, eligible)
        # With an excluded row, or one that overlaps, all of its copies are dropped already.
        others = either(excluded, rows_of(overlaps))
        duplicates = duplicates if others is None else duplicates.without(others)
    return _Dropped(duplicates, excluded, overlaps)


def _with_tokens(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    eligible: Eligible,
    ranking: Ranking,
    tokens: int,
    in_proportion: bool,
) -> Ranking:
    """The best rows that together have so many tokens.

    Args:
        corpus_pass: How to go over the corpus.
        chunks: The whole corpus.
        eligible: Reads which rows may be kept; all are one group.
        ranking: How all of them were found.
        tokens: The last row is the one that reaches this number.
        in_proportion: The number of rows is that share of all which `tokens` are of all tokens:
            what rows of every length have, together.
    """
    (group,) = ranking.groups
    weighted = replace(eligible, by_tokens=True)
    request = GroupRequest("", group.rows, tokens)
    (found,) = rank_again(corpus_pass, chunks, group.rows, weighted, [request], ranking).groups
    if in_proportion and found.eligible:
        rows = min(group.eligible, group.eligible * tokens // found.eligible)
    else:
        everything = first_ranges(eligible.within, group.rows, 1)
        best = Kept(eligible, Cutoffs((found.cutoff,)))
        rows = int(count_rows(corpus_pass, chunks, best, everything).sum())
    return replace(ranking, groups=(replace(group, wanted=rows, kept=rows, cutoff=found.cutoff),))


def _by_length(
    arm: Arm,
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    rows: int,
    kept: Kept,
    ranking: Ranking,
    requests: Sequence[GroupRequest],
) -> tuple[Kept, Ranking]:
    """Chooses so many rows of each length of answers as the arm wants.

    Args:
        arm: What is kept.
        corpus_pass: How to go over the corpus.
        chunks: The whole corpus.
        rows: All rows of the corpus.
        kept: The rows that are kept whatever their length.
        ranking: How those were found.
        requests: How many rows of each group are wanted, whatever their length.

    Returns:
        Reads the kept rows; and how many each group keeps. With a cut-off for each length, a group
        has none of its own.
    """
    by_length = replace(kept.eligible, by_length=True)
    matched = arm.by_length == "matched"
    of_lengths = count_lengths(
        corpus_pass, chunks, by_length, len(requests), kept.cutoffs if matched else None
    )
    if not matched:
        of_lengths = np.stack(
            [
                share_out(request.wanted, of_group)
                for request, of_group in zip(requests, of_lengths, strict=True)
            ]
        )
    eligible = replace(by_length, bounds=arm.bounds, criterion=arm.drawn_by)
    wanted = [GroupRequest("", 0, count) for count in of_lengths.reshape(-1).tolist()]
    found = rank_again(corpus_pass, chunks, rows, eligible, wanted, ranking)
    return Kept(eligible, found.cutoffs), found.joined(requests)


def tokens_of(selection: Selection) -> int:
    """Tokens of prompt and answer that the kept rows were scored with, together.

    Raises:
        SfRayError: A score piece cannot be read.
    """
    weighted = replace(selection.kept.eligible, by_tokens=True)
    kept = Kept(weighted, selection.kept.cutoffs)
    everything = first_ranges(weighted.within, selection.corpus.rows, len(kept.cutoffs.last_values))
    chunks = selection.chunks()
    return int(count_rows(selection.corpus_pass, chunks, kept, everything).sum())


def with_diversity(
    selection: Selection,
    options: SelectionOptions,
    score_set: ScoreSet,
    embedder: EmbedderSpec,
    wall_s: WallTimes,
) -> Selection:
    """The selection, reduced to the rows that represent all of its rows best.

    Args:
        selection: From `select_rows`.
        options: Options of the run.
        score_set: Embeddings are kept beside these scores.
        embedder: The encoder that makes embeddings.
        wall_s: Gets the seconds of each step.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: The encoder cannot be loaded, or storage failed.
    """
    corpus_rows = selection.corpus.rows
    wanted = rows_to_keep(corpus_rows, options.diversify_to or 0)
    if wanted >= selection.rows:  # all rows are wanted: there is nothing to choose
        return selection
    if not wanted:
        none = Diversified(0, Bitmap.empty(corpus_rows), 0.0, True, 1.0)
        return replace(selection, diversity=none)
    row_format = format_of(score_set)
    target = embedding_set_of(score_set.location, embedder.model.fingerprint, row_format)
    with timed("embed", wall_s):
        embed_kept(options, selection, embedder, row_format, target)
    with timed("diversify", wall_s):
        diversity = diversify(selection, wanted, target)
    return replace(selection, diversity=diversity)


def _groups(
    quota: Quota, corpus: Corpus, corpus_pass: CorpusPass, chunks: Sequence[Chunk]
) -> tuple[Grouping, list[GroupRequest]]:
    """The values of the quota's column, and how many rows of each value are wanted."""
    column = column_of(corpus, quota.column)
    rows = count_values(corpus_pass, chunks, corpus.location, column)
    values = sorted({*rows, *quota.named})
    requests = [
        GroupRequest(value, rows[value], quota.wanted(value, rows[value])) for value in values
    ]
    code_of = {value: code for code, value in enumerate(values)}
    return Grouping(corpus.location, column, code_of), requests
