"""Selecting and writing on a cluster: scores -> cut-offs -> filtered shards, and the manifest."""

from sf_ray.commands.locations import location_of
from sf_ray.config.options import CorpusOptions, SelectionOptions
from sf_ray.config.registry import command_line
from sf_ray.corpus.planning import Corpus, say_skipped
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.errors import UsageError
from sf_ray.output.export_tasks import export
from sf_ray.output.layout import Output
from sf_ray.output.report.files import write_report
from sf_ray.output.report.survey_tasks import summarise
from sf_ray.output.report.terminal import print_manifest
from sf_ray.output.run_manifest import RunRequest, RunResult, manifest_of
from sf_ray.output.shard_tasks import write_kept
from sf_ray.runtime.log import WallTimes, say, timed
from sf_ray.scoring.score_set import ScoreSet, digest, format_of
from sf_ray.scoring.stages.tally import Scored
from sf_ray.selection.corpus_pass import MarkedBadError
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.group_column import GroupColumn, find_column
from sf_ray.selection.run import select_rows, with_diversity
from sf_ray.storage.location import Location


def is_done(
    options: SelectionOptions, corpus: Corpus, score_set: ScoreSet, embedder: EmbedderSpec | None
) -> bool:
    """Whether the output answers this very request; then says so and what is in it."""
    output = _output(options)
    manifest = output.finished(_request_id(options, corpus, score_set, embedder))
    if manifest is not None:
        say("nothing to do: the output is there, whole, and of this very request")
        print_manifest(manifest, output.location)
    return manifest is not None


def select_and_write(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    embedder: EmbedderSpec | None,
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
                selection = select_rows(options, corpus, score_set)
            if embedder is not None:
                selection = with_diversity(selection, options, score_set, embedder, wall_s)
            with timed("write", wall_s):
                written = write_kept(options, selection, output)
            break
        except MarkedBadError:
            known, corpus = corpus.skipped, corpus.without(score_set.bad_shards())
            say_skipped(corpus.skipped, known, then="; selecting again")
    row_format, exported = format_of(score_set), None
    if options.export is not None:
        with timed("export", wall_s):
            where = output.data, output.exports
            exported = export(options.export, row_format, *where, options.stall_s)
    with timed("survey", wall_s):
        summary = summarise(selection, row_format, _column_to_report(options, corpus))
    manifest = manifest_of(
        _request(options, corpus, score_set, embedder),
        corpus,
        score_set,
        RunResult(
            scored=scored,
            ranking=selection.ranking,
            dropped_duplicates=None if selection.duplicates is None else len(selection.duplicates),
            diversity=selection.diversity,
            shards=written,
            export=exported,
        ),
        wall_s,
    )
    write_report(output, manifest, summary)
    output.finish(manifest)
    print_manifest(manifest, output.location)
    return corpus


def _output(options: SelectionOptions) -> Output:
    return Output(location_of(options, options.output))


def _request(
    options: SelectionOptions, corpus: Corpus, score_set: ScoreSet, embedder: EmbedderSpec | None
) -> RunRequest:
    """What was asked for, as the manifest says it."""
    return RunRequest(
        request_id=_request_id(options, corpus, score_set, embedder),
        command=command_line(options, lambda uri: Location(uri).public_uri),
        options=options,
        encoder=Location(embedder.model.name).public_uri if embedder else "",
        encoder_fingerprint=embedder.model.fingerprint if embedder else "",
    )


def _request_id(
    options: SelectionOptions, corpus: Corpus, score_set: ScoreSet, embedder: EmbedderSpec | None
) -> str:
    """Names all that decides what is written."""
    decides = SelectionOptions.model_fields.keys() - CorpusOptions.model_fields.keys() - {"output"}
    asked = options.model_dump(include=set(decides))
    encoded_by = embedder and embedder.model.fingerprint
    return digest([corpus.fingerprint, score_set.scoring_id, asked, encoded_by])


def _column_to_report(options: SelectionOptions, corpus: Corpus) -> GroupColumn | None:
    """The column whose values the report tells apart, where there is one."""
    if options.report_by is not None:
        return find_column(corpus.schema, options.report_by, "--report-by")
    if options.quota is not None:
        return find_column(corpus.schema, options.quota.column)
    try:  # of JSON every row would have to be parsed once more
        return None if corpus.file_type is FileType.JSON else find_column(corpus.schema, "source")
    except UsageError:
        return None
