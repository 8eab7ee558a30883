"""Options -> what is kept of a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sf_ray.config.options import SelectionOptions
from sf_ray.config.quotas import Quota, rows_to_keep
from sf_ray.corpus.planning import Corpus
from sf_ray.runtime.log import WallTimes, timed
from sf_ray.scoring.bad_rows import check_bad_fraction
from sf_ray.scoring.score_set import ScoreSet, ShardUnits, _format_of
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Eligible, Grouping, Kept
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.cutoff_tasks import count_values, rank
from sf_ray.selection.cutoffs import Bounds, TokenBounds
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.diversity.embedding_run import embed_kept
from sf_ray.selection.diversity.embedding_set import embedding_set_of
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.diversity.partition_tasks import diversify
from sf_ray.selection.duplicate_tasks import find_copies
from sf_ray.selection.group_column import find_column
from sf_ray.selection.ranking import GroupRequest, Ranking


@dataclass(frozen=True)
class _Selection:
    """What is kept of a corpus, and all that tells which rows those are."""

    passes: CorpusPass
    units: ShardUnits
    kept: Kept
    copies: Bitmap | None
    ranking: Ranking
    diversity: Diversified | None = None

    @property
    def dropped(self) -> Bitmap | None:
        """Rows that are not kept whatever their IFD is."""
        return self.copies if self.diversity is None else self.diversity.rows.others()

    @property
    def rows(self) -> int:
        """How many are kept."""
        return self.ranking.kept if self.diversity is None else len(self.diversity.rows)


def _select(options: SelectionOptions, corpus: Corpus, score_set: ScoreSet) -> _Selection:
    passes = CorpusPass(score_set.pieces, options.on_bad_shard == "skip", options.stall_s)
    units = score_set.units(corpus)
    chunks = chunks_of(units)
    bounds = _bounds(options)
    if options.quota is None:
        grouping = None
        keep = options.keep_count or options.keep_fraction or 0
        asked = [GroupRequest("", corpus.rows, rows_to_keep(corpus.rows, keep))]
    else:
        grouping, asked = _groups(options.quota, corpus, passes, chunks)
    copies = None
    if options.drop_duplicates:
        copies = find_copies(passes, units, corpus.rows, Eligible(score_set.pieces, bounds))
        chunks = [chunk.without(copies) for chunk in chunks]
    eligible = Eligible(score_set.pieces, bounds, grouping)
    ranking = rank(passes, chunks, corpus.rows, eligible, asked)
    check_bad_fraction(
        corpus, _format_of(score_set), ranking.status_counts, ranking.bad, options.max_bad_fraction
    )
    return _Selection(passes, units, Kept(eligible, ranking.cutoffs), copies, ranking)


def _diversified(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    embedder: EmbedderSpec,
    selection: _Selection,
    wall_s: WallTimes,
) -> _Selection:
    """The selection, of which only those rows are kept that stand for all of it.

    Raises:
        MarkedBadError: Shards turned out to be bad.
    """
    passes, units, copies = selection.passes, selection.units, selection.copies
    kept, kept_rows = selection.kept, selection.ranking.kept
    wanted = rows_to_keep(corpus.rows, options.diversify_to or 0)
    if wanted >= kept_rows:  # all of them: nothing to compare
        return selection
    if not wanted:
        none = Diversified(0, Bitmap.empty(corpus.rows), 0.0, True, 1.0)
        return replace(selection, diversity=none)
    row_format = _format_of(score_set)
    target = embedding_set_of(score_set.location, embedder.model.fingerprint, row_format)
    with timed("embed", wall_s):
        embed_kept(options, corpus, passes, units, copies, kept, embedder, row_format, target)
    with timed("diversify", wall_s):
        found = diversify(passes, units, copies, corpus.rows, kept, kept_rows, wanted, target)
    return replace(selection, diversity=found)


def _bounds(options: SelectionOptions) -> Bounds:
    tokens = (
        TokenBounds("prompt_tokens", options.min_prompt_tokens, options.max_prompt_tokens),
        TokenBounds("answer_tokens", options.min_answer_tokens, options.max_answer_tokens),
    )
    asked = tuple(one for one in tokens if (one.low, one.high) != (None, None))
    return Bounds(options.min_ifd, options.max_ifd, asked)


def _groups(
    quota: Quota, corpus: Corpus, passes: CorpusPass, chunks: Sequence[Chunk]
) -> tuple[Grouping, list[GroupRequest]]:
    """The values of the quota's column, and how many rows of each are wanted."""
    column = find_column(corpus.schema, quota.column)
    rows = count_values(passes, chunks, corpus.location, column)
    values = sorted({*rows, *quota.named})
    asked = [GroupRequest(value, rows[value], quota.wanted(value, rows[value])) for value in values]
    code_of = {value: code for code, value in enumerate(values)}
    return Grouping(corpus.location, column, code_of), asked
