"""Selecting, once all units have scores: scores -> kept rows -> filtered shards -> manifest."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sf_ray.commands.lineage import Lineage
from sf_ray.commands.locations import location_of, whole_input
from sf_ray.config.options import CorpusOptions
from sf_ray.config.registry import command_line
from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.columns import unused_text
from sf_ray.corpus.plan_cache import sample_of
from sf_ray.corpus.planning import Corpus, SkippedShards, say_skipped
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.commits.commit import Committed
from sf_ray.output.export_formats import Export
from sf_ray.output.export_tasks import export
from sf_ray.output.layout import Output
from sf_ray.output.manifest import Manifest
from sf_ray.output.report.files import write_report
from sf_ray.output.report.summary import Summary
from sf_ray.output.report.survey_tasks import NormalisedRequest, summarise
from sf_ray.output.report.svg import load as load_drawing
from sf_ray.output.report.terminal import print_committed, print_manifest
from sf_ray.output.run_manifest import RunRequest, RunResult, manifest_of
from sf_ray.output.shard_tasks import write_kept
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.runtime.log import WallTimes, say, timed
from sf_ray.scoring.score_set import ScoreSet, digest, format_of
from sf_ray.scoring.stages.tally import Scored
from sf_ray.selection.corpus_pass import MarkedBadError
from sf_ray.selection.exact.rescoring import Rescoring
from sf_ray.selection.exact.run import ExactSelection
from sf_ray.selection.group_column import GroupColumn, column_of, group_problem
from sf_ray.selection.run import select_rows, with_diversity
from sf_ray.selection.selection import Selection, SelectionInputs
from sf_ray.storage.lease.lease import HeldLease
from sf_ray.storage.location import Location, whole_path
from sf_ray.storage.table_names import parse_table

# Options of the selection that are younger than the request ids of outputs that are there.
_ADDED = (
    "keep_tokens", "drop_near_duplicates", "file_size", "compression", "row_group_size",
)  # fmt: skip
# The rows of a corpus that float32 would select.
Exactly = Callable[[Corpus], ExactSelection]


@dataclass(frozen=True)
class Done:
    """A finished output.

    Attributes:
        manifest: What it holds.
        output: Where it is.
        skipped: The shards of the corpus that were left out.
        committed: The commit of its rows; None where there is none.
    """

    manifest: Manifest
    output: Location
    skipped: SkippedShards
    committed: Committed | None = None

    def printed(self) -> SkippedShards:
        """Prints what the output holds, and returns the shards that were left out."""
        print_manifest(self.manifest, self.output)
        if self.committed is not None:
            print_committed(self.committed)
        return self.skipped


def done_before(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    inputs: SelectionInputs,
    exact_sample: int | None = None,
) -> Done | None:
    """The output, if it answers this very request already; None where it does not.

    `exact_sample` are the rows of the sample of an exact selection; None for another one.
    """
    output = Output(location_of(options, options.output))
    manifest = output.finished(_request_id(options, corpus, score_set, inputs, exact_sample))
    if manifest is None:
        return None
    say("nothing to do: the output is there, whole, and of this very request")
    return Done(manifest, output.location, corpus.skipped)


def select_and_write(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    inputs: SelectionInputs,
    scored: Scored,
    wall_s: WallTimes,
    held: HeldLease,
    lineage: Lineage,
    exactly: Exactly | None = None,
) -> Done:
    """Selects rows, writes the filtered shards and, last of all, the manifest.

    Args:
        options: Options of the run.
        corpus: The corpus.
        score_set: Scores of all units of the corpus.
        inputs: What is read beside the two.
        scored: What this run scored, for the manifest.
        wall_s: Gets the seconds of each step.
        held: The lease on OUTPUT, which is checked before anything final is overwritten.
        lineage: Reports what was written.
        exactly: How to select as float32 would; None to select by the scores as they are.

    Raises:
        SfRayError: Something is wrong with the data, the output or storage.
    """
    output = Output(location_of(options, options.output), held.check)
    # While Ray's tasks select and write, this process has nothing else to do.
    threading.Thread(target=load_drawing, daemon=True).start()
    selection, rescoring, written = _select_and_write_shards(
        options, corpus, score_set, inputs, output, wall_s, exactly
    )
    exported = None
    if options.export is not None:
        with timed("export", wall_s):
            exported = export(
                options.export, format_of(score_set), output.data, output.exports, options.stall_s
            )
    with timed("survey", wall_s):
        summary = _summary(options, score_set, selection)
    asked = None if rescoring is None else rescoring.asked
    manifest = manifest_of(
        _request(options, selection.corpus, score_set, inputs, asked),
        selection.corpus,
        score_set,
        _result(selection, inputs, scored, rescoring, written, exported),
        wall_s,
    )
    output.check_written(manifest)
    write_report(output, manifest, summary)
    lineage.keep(output, selection.corpus, manifest)
    output.finish(manifest)
    lineage.complete()
    return Done(manifest, output.location, selection.corpus.skipped)


def _result(
    selection: Selection,
    inputs: SelectionInputs,
    scored: Scored,
    rescoring: Rescoring | None,
    written: list[WrittenShard],
    exported: Export | None,
) -> RunResult:
    """What the manifest says of the rows that were kept and written."""
    duplicates, excluded = selection.duplicates, selection.excluded
    return RunResult(
        scored=scored,
        rescoring=rescoring,
        ranking=selection.ranking,
        dropped_duplicates=None if duplicates is None else len(duplicates),
        excluded=[files.corpus for files in inputs.excluded],
        excluded_rows=0 if excluded is None else len(excluded),
        diversity=selection.diversity,
        shards=written,
        export=exported,
        tokens=selection.tokens,
        overlaps=selection.overlaps,
        near=selection.near,
    )


def _summary(options: SelectionOptions, score_set: ScoreSet, selection: Selection) -> Summary:
    """What the report shows of the scores, and of what was kept."""
    row_format, column = format_of(score_set), _column_to_report(options, selection.corpus)
    unused = unused_text(row_format, sample_of(score_set.location, selection.corpus).rows)
    below = options.model_copy(update={"by": "length-normalised"}).kept_below
    normalised = NormalisedRequest(below, options.keep_tokens)
    summary = summarise(selection, row_format, column, normalised)
    return replace(summary, unused=tuple(unused))


def _select_and_write_shards(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    inputs: SelectionInputs,
    output: Output,
    wall_s: WallTimes,
    exactly: Exactly | None,
) -> tuple[Selection, Rescoring | None, list[WrittenShard]]:
    """Selects and writes until no shard turns out to be bad on the way.

    Which rows are kept depends on all rows, so a selection with rows of a bad shard is void.
    """
    while True:
        try:
            rescoring = None
            with timed("select" if exactly is None else "exact", wall_s):
                if exactly is None:
                    selection = select_rows(options, corpus, score_set, inputs)
                else:
                    selection, rescoring = exactly(corpus)
            if options.diversify_to is not None and inputs.embedder is not None:
                selection = with_diversity(selection, options, score_set, inputs.embedder, wall_s)
            with timed("write", wall_s):
                return selection, rescoring, write_kept(options, selection, output)
        except MarkedBadError:
            known, corpus = corpus.skipped, corpus.without(score_set.bad_shards())
            if corpus.skipped == known:  # else this would go on for ever
                raise SfRayError(
                    f"{score_set.marks.public_uri}: a node marked a shard as bad there, but this "
                    "machine does not see the mark. Give SCORES a bucket, or a file system that "
                    "all nodes share"
                ) from None
            say_skipped(corpus.skipped, known, then="; selecting again")


def _request(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    inputs: SelectionInputs,
    exact_sample: int | None,
) -> RunRequest:
    """What was asked for, as the manifest says it."""
    embedder = inputs.embedder
    return RunRequest(
        request_id=_request_id(options, corpus, score_set, inputs, exact_sample),
        command=command_line(_anywhere(options), _public),
        options=options,
        encoder=Location(embedder.model.name).public_uri if embedder else "",
        encoder_fingerprint=embedder.model.fingerprint if embedder else "",
    )


def _anywhere(options: SelectionOptions) -> SelectionOptions:
    """The options with absolute paths of input, scores and output: right in any directory."""
    places = {name: getattr(options, name, None) for name in ("scores", "output")}
    whole: dict[str, Any] = {name: whole_path(place) for name, place in places.items() if place}
    whole["input"] = whole_input(options.input)
    if table := parse_table(getattr(options, "commit_to", None) or ""):
        whole["commit_to"] = table.absolute().text
    files = {
        name: list(map(whole_input, getattr(options, name)))
        for name in ("exclude", "drop_overlap_with")
    }
    return options.model_copy(update=whole | files)


def _public(uri: str) -> str:
    """A place without secrets."""
    table = parse_table(uri)
    return Location(uri).public_uri if table is None else table.public_name


def _request_id(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    inputs: SelectionInputs,
    exact_sample: int | None,
) -> str:
    """A hash of everything that decides which files are written, and of what they hold."""
    # The options of the corpus are left out, because the fingerprint stands for the corpus.
    names = SelectionOptions.model_fields.keys() - CorpusOptions.model_fields.keys() - {"output"}
    values = options.model_dump(include=set(names)) | {"max_ifd": options.kept_below}
    # Left out where they change nothing: outputs of older versions keep their id.
    unchanged = {"by": "ifd", "rank_by": "ifd"}
    for name in ("by", "rank_by", *_ADDED):
        if values[name] == unchanged.get(name):
            del values[name]
    if options.drop_near_duplicates is None:
        del values["near_duplicates_by"]
    if options.by not in ("random", "length-matched"):
        del values["seed"]
    if options.rank_by != "s-ifd":
        del values["token_share"]
    # The fingerprints stand for the files.
    for name, key, every in (
        ("exclude", "excluded", inputs.excluded),
        ("drop_overlap_with", "overlap_with", inputs.overlap_with),
    ):
        del values[name]
        if every:
            values[key] = [files.corpus.fingerprint for files in every]
    encoder = inputs.embedder and inputs.embedder.model.fingerprint
    decided = [corpus.fingerprint, score_set.scoring_id, values, encoder]
    if exact_sample is not None:  # else left out: outputs of older versions keep their id
        decided.append({"exact_sample": exact_sample})
    return digest(decided)


def _column_to_report(options: SelectionOptions, corpus: Corpus) -> GroupColumn | None:
    """The column whose values the report counts separately; None for no column.

    Without `--report-by` and a quota: the column "source", where the corpus has one.
    """
    if options.report_by is not None:
        return column_of(corpus, options.report_by, "--report-by")
    if options.quota is not None:
        return column_of(corpus, options.quota.column)
    if corpus.file_type is FileType.JSON:
        return None  # every row would have to be parsed once more
    if any(group_problem(schema, "source") for schema, _ in corpus.by_schema()):
        return None  # nobody asked for it, so that this is no error
    try:
        return column_of(corpus, "source")
    except UsageError:
        return None
