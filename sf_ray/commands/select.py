"""Selecting and writing on a cluster: scores -> cut-offs -> filtered shards, and the manifest."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sf_ray.config.options import CorpusOptions, SelectionOptions
from sf_ray.config.quotas import Quota, rows_to_keep
from sf_ray.config.registry import command_line
from sf_ray.corpus.formats import Format, resolve_format
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.file_types import Kind
from sf_ray.corpus.units import Shard
from sf_ray.encoding.specs import ModelSpec
from sf_ray.errors import BadShardError, UsageError
from sf_ray.output.export_tasks import export, export_names
from sf_ray.output.layout import Output
from sf_ray.output.manifest import manifest_of
from sf_ray.output.report.files import write_report
from sf_ray.output.report.summary import Summary
from sf_ray.output.report.survey_tasks import summarise
from sf_ray.output.report.terminal import print_manifest
from sf_ray.output.shard_writer import WrittenShard, write_shard
from sf_ray.output.sorted_parts import part_names
from sf_ray.output.sorted_tasks import chunks_to_write, count_parts, find_cuts, write_in_order
from sf_ray.runtime.log import say, timed
from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.bad_rows import check_bad_fraction
from sf_ray.scoring.run import Scored
from sf_ray.scoring.score_set import ScoreSet, ShardUnits, digest, mark_bad, share_shards
from sf_ray.selection.chunks import Chunk, Eligible, Grouping, Kept
from sf_ray.selection.corpus_pass import MarkedBadError, Passes, chunks_of
from sf_ray.selection.cutoff_tasks import Ranking, Wanted, count_values, rank
from sf_ray.selection.cutoffs import Bounds, TokenBounds
from sf_ray.selection.diversity.embedding_run import embed_kept
from sf_ray.selection.diversity.embedding_set import embedding_set_of
from sf_ray.selection.diversity.partition_tasks import Diversified, diversify
from sf_ray.selection.duplicate_tasks import find_copies
from sf_ray.selection.duplicates import Bitmap
from sf_ray.selection.group_column import GroupColumn, find_column
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# Small shards of one task that wait for storage together.
_WRITES_AT_ONCE = 8

WallTimes = dict[str, float]


@dataclass(frozen=True)
class _Selection:
    """What is kept of a corpus, and all that tells which rows those are."""

    passes: Passes
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


def is_done(
    options: SelectionOptions, corpus: Corpus, score_set: ScoreSet, encoder: ModelSpec | None
) -> bool:
    """Whether the output answers this very request; then says so and what is in it."""
    output = _output(options)
    manifest = output.finished(_request_id(options, corpus, score_set, encoder))
    if manifest is not None:
        say("nothing to do: the output is there, whole, and of this very request")
        print_manifest(manifest, output.location)
    return manifest is not None


def select_and_write(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    encoder: ModelSpec | None,
    scored: Scored,
    wall_s: WallTimes,
) -> Corpus:
    """Finds the cut-offs, writes the filtered shards and, last of all, the manifest.

    Args:
        options: Of the run.
        corpus: The corpus.
        score_set: Scores of all of its units.
        encoder: What `--diversify-to` needs; None without it.
        scored: What this run scored.
        wall_s: Gets the time of each stage.

    Returns:
        The corpus without the shards that turned out to be bad.
    """
    output = _output(options)
    while True:
        try:
            with timed("select", wall_s):
                selection = _select(options, corpus, score_set)
            if encoder is not None:
                selection = _diversified(options, corpus, score_set, encoder, selection, wall_s)
            with timed("write", wall_s):
                written = _write(options, corpus, selection, output)
            break
        except MarkedBadError:
            known, corpus = corpus.skipped, corpus.without(score_set.bad_shards())
            for shard in corpus.skipped:
                if shard not in known:
                    say(f"note: skipping shard {shard.relative}: {shard.reason}; selecting again")
    row_format, exported = _format_of(score_set), None
    if options.export is not None:
        with timed("export", wall_s):
            where = output.data, output.exports
            exported = export(options.export, row_format, *where, options.stall_s)
    with timed("survey", wall_s):
        summary = _surveyed(options, corpus, selection, row_format)
    manifest = manifest_of(
        request_id=_request_id(options, corpus, score_set, encoder),
        command=command_line(options, lambda uri: Location(uri).public_uri),
        corpus=corpus,
        score_set=score_set,
        scored=scored,
        options=options,
        ranking=selection.ranking,
        dropped_duplicates=None if selection.copies is None else len(selection.copies),
        diversity=selection.diversity,
        encoder=encoder,
        written=written,
        exported=exported,
        wall_s=wall_s,
    )
    write_report(output, manifest, summary)
    output.finish(manifest)
    print_manifest(manifest, output.location)
    return corpus


def _surveyed(
    options: SelectionOptions, corpus: Corpus, selection: _Selection, row_format: Format
) -> Summary:
    """What the report is to show of the selection."""
    return summarise(
        corpus,
        selection.units,
        selection.kept,
        selection.copies,
        selection.dropped,
        row_format,
        _column_to_report(options, corpus),
        options.stall_s,
    )


def _output(options: SelectionOptions) -> Output:
    return Output(Location(options.output, options.storage_options, options.storage_retry_s))


def _request_id(
    options: SelectionOptions, corpus: Corpus, score_set: ScoreSet, encoder: ModelSpec | None
) -> str:
    """Names all that decides what is written."""
    decides = SelectionOptions.model_fields.keys() - CorpusOptions.model_fields.keys() - {"output"}
    asked = options.model_dump(include=set(decides))
    encoded_by = encoder and encoder.fingerprint
    return digest([corpus.fingerprint, score_set.scoring_id, asked, encoded_by])


def _select(options: SelectionOptions, corpus: Corpus, score_set: ScoreSet) -> _Selection:
    passes = Passes(score_set.pieces, options.on_bad_shard == "skip", options.stall_s)
    units = score_set.units(corpus)
    chunks = chunks_of(units)
    bounds = _bounds(options)
    if options.quota is None:
        grouping = None
        keep = options.keep_count or options.keep_fraction or 0
        asked = [Wanted("", corpus.rows, rows_to_keep(corpus.rows, keep))]
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
    encoder: ModelSpec,
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
    target = embedding_set_of(score_set.location, encoder.fingerprint, row_format)
    with timed("embed", wall_s):
        embed_kept(options, corpus, passes, units, copies, kept, encoder, row_format, target)
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


def _column_to_report(options: SelectionOptions, corpus: Corpus) -> GroupColumn | None:
    """The column whose values the report tells apart, where there is one."""
    if options.report_by is not None:
        return find_column(corpus.schema, options.report_by, "--report-by")
    if options.quota is not None:
        return find_column(corpus.schema, options.quota.column)
    try:  # of JSON every row would have to be parsed once more
        return None if corpus.kind is Kind.JSON else find_column(corpus.schema, "source")
    except UsageError:
        return None


def _groups(
    quota: Quota, corpus: Corpus, passes: Passes, chunks: Sequence[Chunk]
) -> tuple[Grouping, list[Wanted]]:
    """The values of the quota's column, and how many rows of each are wanted."""
    column = find_column(corpus.schema, quota.column)
    rows = count_values(passes, chunks, corpus.location, column)
    values = sorted({*rows, *quota.named})
    asked = [Wanted(value, rows[value], quota.wanted(value, rows[value])) for value in values]
    code_of = {value: code for code, value in enumerate(values)}
    return Grouping(corpus.location, column, code_of), asked


def _format_of(score_set: ScoreSet) -> Format:
    """The format that the rows had when they were scored."""
    identity = score_set.identity
    columns = identity["columns"]
    return resolve_format(list(columns.values()), identity["format"], columns)


def _write(
    options: SelectionOptions, corpus: Corpus, selection: _Selection, output: Output
) -> list[WrittenShard]:
    """Writes what is kept, in the order that was asked for.

    Raises:
        MarkedBadError: Shards turned out to be bad.
    """
    passes, dropped = selection.passes, selection.dropped
    if options.order == "ifd":
        kept_rows = selection.rows
        names = part_names(corpus.kind, count_parts(corpus, kept_rows))
        chunks = chunks_of(selection.units, dropped)
        cuts = find_cuts(passes, chunks, corpus.rows, selection.kept, kept_rows, len(names))
        output.begin(names, export_names(options.export, len(names)))
        return write_in_order(
            passes,
            corpus,
            chunks_to_write(corpus, selection.units, dropped, kept_rows, len(names)),
            selection.kept,
            cuts,
            names,
            output.data,
            options.ifd_column,
        )
    names = [shard.file.relative for shard in corpus.shards]
    output.begin(names, export_names(options.export, len(names)))
    write = functools.partial(
        _write_shards,
        corpus.location,
        selection.kept,
        output.data,
        options.ifd_column,
        passes.skip_bad,
    )
    tasks = [
        [
            (shard, Chunk([(shard, unit) for unit in units]).without(dropped))
            for shard, units in shards
        ]
        for shards in share_shards(selection.units)
    ]
    written = [one for done in parallel_map(write, tasks, passes.stall_s) for one in done]
    if len(written) < len(corpus.shards):
        raise MarkedBadError
    return written


def _write_shards(
    corpus: Location,
    kept: Kept,
    data: Location,
    ifd_column: str,
    skip_bad: bool,
    shards: Sequence[tuple[Shard, Chunk]],
) -> list[WrittenShard]:
    """Writes some filtered shards; a bad one is left out, which a mark then says."""

    def write(place: tuple[Shard, Chunk]) -> WrittenShard | None:
        shard, chunk = place
        try:
            ifd = kept.read(chunk).ifd if chunk.places else np.empty(0)
            return write_shard(corpus, shard, ifd, ~np.isnan(ifd), data, ifd_column)
        except BadShardError as error:
            if not skip_bad:
                raise
            mark_bad(kept.eligible.scores, shard.stem, error.reason)
            return None

    return [shard for shard in map_requests(data, write, shards, _WRITES_AT_ONCE) if shard]
