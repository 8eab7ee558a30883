"""What every command over a corpus does before its own work: check places, list shards, find specs.

Writes no file and reads no scores. Beside the corpus and the model it reads what an earlier run has
left beside its score pieces: footers, and marks of bad shards.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from sf_ray.commands.locations import (
    input_of,
    input_storage_options,
    location_of,
    model_storage_options,
    refuse_unwritable,
    whole_input,
)
from sf_ray.config.options import CorpusOptions, ScoringOptions
from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.columns import as_in_json, in_words, unused_text
from sf_ray.corpus.formats import Format, resolve_format
from sf_ray.corpus.newly_read import newly_read
from sf_ray.corpus.plan_cache import Sample, read_footers, sample_of
from sf_ray.corpus.planning import Corpus, passed_over_text, plan_corpus, say_skipped
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.sampling import field_names
from sf_ray.corpus.tables.read import former_columns_named, read_table
from sf_ray.corpus.tables.snapshot import TableSnapshot
from sf_ray.corpus.units import Footer
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
from sf_ray.encoding.template_process import PROCESS
from sf_ray.encoding.templates import Template
from sf_ray.engine.model_files import (
    Model,
    chat_template,
    context_window,
    load_tokenizer,
    resolve_dtype,
    resolve_model,
)
from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.layout import Output
from sf_ray.output.writers.arrow_rows import uncopyable
from sf_ray.runtime.cluster import resolve_device, start_ray
from sf_ray.runtime.log import WallTimes, say, timed
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.score_set import ScoreSet
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.excluded import ExcludedFiles
from sf_ray.selection.group_column import column_of
from sf_ray.storage.files import read_bytes
from sf_ray.storage.listing import overlap
from sf_ray.storage.location import Location
from sf_ray.storage.names import as_text
from sf_ray.storage.table_names import parse_table

_COMPRESSIONS = {
    FileType.PARQUET: ("zstd", "snappy", "gzip", "lz4", "none"),
    FileType.ARROW: ("zstd", "lz4", "none"),
    FileType.JSON: ("zstd", "gzip", "lz4", "none"),
}

# Shard id -> the footer that an earlier run has read.
KnownFooters = dict[str, Footer]


@dataclass(frozen=True)
class Specs:
    """The classes of which a command makes its specs; tests and benches pass fakes.

    Attributes:
        encoding, engine, embedder: The real classes, or classes derived from them.
    """

    encoding: type[EncodingSpec] = EncodingSpec
    engine: type[EngineSpec] = EngineSpec
    embedder: type[EmbedderSpec] = EmbedderSpec


@dataclass(frozen=True)
class ScoringSpec:
    """All that decides the scores of a corpus, wherever the scores are kept.

    Attributes:
        encoding: Rows -> token ids.
        engine: Token ids -> losses.
        identity: The values that decide a score, as a score set is identified by them.
    """

    encoding: EncodingSpec
    engine: EngineSpec
    identity: dict[str, Any]


def check_places(options: CorpusOptions, scores: str | None, output: str | None) -> None:
    """Refuses scores and output where nothing can be written, or that overlap the input.

    Raises:
        UsageError: Names the place, or both that lie inside each other.
    """
    for flag, place in (("INPUT", options.input), ("OUTPUT", output), ("--scores", scores)):
        if place and as_text(place) != place:
            raise UsageError(
                f"{flag} {as_text(place)}: not UTF-8, so that no manifest can hold it; rename it"
            )
    for flag, place in (("OUTPUT", output), ("--scores", scores)):
        if place:
            refuse_unwritable(flag, place)
    if parse_table(options.input) is None:  # where a table's files lie, only the table knows
        written = [location_of(options, place) for place in (output, scores) if place]
        _refuse_overlap(input_of(options), written)
    if output and scores:
        data = Output(location_of(options, output)).data
        if overlap(data, location_of(options, scores)):
            raise UsageError(
                f"--scores {location_of(options, scores).public_uri} lies in {data.public_uri}, "
                "where only filtered shards go: choose another place for the scores"
            )


def _refuse_overlap(corpus: Location, written: Iterable[Location]) -> None:
    for other in written:
        if overlap(corpus, other, one_is_input=True):
            raise UsageError(
                f"INPUT {corpus.public_uri} and {other.public_uri} lie inside each "
                "other; the input is never written to: choose another place for the output"
            )


def list_corpus(
    options: CorpusOptions, scores: Location | None, wall_s: WallTimes
) -> tuple[Corpus, KnownFooters]:
    """Lists the shards of the corpus as it is now, and says how many there are.

    Args:
        options: Where the corpus lies, and what to do about bad shards.
        scores: Where footers of an earlier run may lie; their shards are not opened again.
        wall_s: Gets the seconds that listing takes.

    Returns:
        The corpus, and the footers that lay beside the scores.

    Raises:
        SfRayError: There are no shards, or some that cannot be used.
        UsageError: Results would go among the files of a table.
    """
    with timed("plan", wall_s):
        known = read_footers(scores) if scores else {}
        corpus = plan_corpus(_source_of(options, scores), known, options.on_bad_shard == "skip")
        size_mb = corpus.bytes / 1e6
        say(f"plan: {len(corpus.shards):,} shards, {corpus.rows:,} rows, {size_mb:,.1f} MB")
        if corpus.passed_over:
            say(f"note: {passed_over_text(corpus.passed_over)}")
        say_skipped(corpus.skipped)
    return corpus, known


def _source_of(options: CorpusOptions, scores: Location | None) -> Location | TableSnapshot:
    """The place of the corpus, or the files that a table has now."""
    source = _source_at(options, options.input, input_storage_options(options))
    if isinstance(source, TableSnapshot):
        say(f"table {source.name.public_name}: snapshot {source.snapshot}")
        output = getattr(options, "output", None)
        written = [location_of(options, output)] if output else []
        _refuse_overlap(source.location, [*written, scores] if scores else written)
    return source


def _source_at(
    options: CorpusOptions, text: str, storage_options: Mapping[str, Any]
) -> Location | TableSnapshot:
    """What a text names that rows are read from: a place or a table."""
    text = whole_input(text)
    name = parse_table(text)
    if name is None:
        place = Location(text, storage_options, options.storage_retry_s)
        return replace(place, max_row_bytes=options.max_row_bytes)
    table = read_table(name, storage_options, options.storage_retry_s)
    location = replace(table.location, max_row_bytes=options.max_row_bytes)
    return replace(table, location=location)


def without_bad(options: CorpusOptions, corpus: Corpus, score_set: ScoreSet) -> Corpus:
    """Leaves out the shards that an earlier run could not read, where bad shards are skipped."""
    return corpus.without(score_set.bad_shards()) if options.on_bad_shard == "skip" else corpus


def check_columns(options: SelectionOptions, corpus: Corpus, sample: Sample) -> None:
    """Refuses a corpus that has the added column already, or lacks a column that is asked for.

    A column whose rows cannot be written is refused too: now, not when all are scored.

    Raises:
        UsageError: Names the column.
    """
    names = field_names(corpus, sample.rows)
    if options.ifd_column in names:
        raise UsageError(
            f"the corpus has a column {options.ifd_column!r} already; name the added one with "
            "--ifd-column"
        )
    if corpus.file_type is FileType.ARROW and (bad := uncopyable(corpus.schema)):
        raise UsageError(bad[0])
    _refuse_compression(options, corpus.file_type)
    asked = {
        "--report-by": options.report_by,
        "--quota": options.quota.column if options.quota else None,
    }
    for flag, column in asked.items():
        if column is None:
            continue
        column_of(corpus, column, flag)
        # JSON shards have no schema: only rows show which fields there are.
        top_level = column.partition(".")[0]
        if corpus.file_type is FileType.JSON and not {column, top_level} & set(names):
            raise UsageError(
                f"{flag}: no row of a sample has the field {column!r}; they have {list(names)}"
            )


def _refuse_compression(options: SelectionOptions, file_type: FileType) -> None:
    """Refuses a compression that files of this type cannot have."""
    asked = options.compression
    if asked is None:
        return
    possible = _COMPRESSIONS[file_type]
    if asked not in possible:
        raise UsageError(
            f"--compression {asked}: {file_type} files cannot have it; choose one of "
            f"{', '.join(possible)}"
        )
    if file_type is FileType.JSON and options.order == "input" and options.file_size is None:
        raise UsageError(
            "--compression: the name of a JSON file says how it is compressed, and filtered shards "
            "keep the names of the input; give --file-size too, which makes names of its own"
        )


def files_to_leave_out(
    options: CorpusOptions, row_format: Format, flag: str, places: Sequence[str]
) -> tuple[ExcludedFiles, ...]:
    """Lists files whose examples may not be kept.

    Args:
        options: How to reach storage.
        row_format: The format of the corpus, which files with its columns have too; another one is
            recognised.
        flag: The option that names the files.
        places: The files.

    Raises:
        SfRayError: There are no such files, or they hold rows of no known format.
    """
    found = []
    for place in places:
        corpus = plan_corpus(_source_at(options, place, options.storage_options))
        sample = sample_of(None, corpus).rows
        names = field_names(corpus, sample)
        held = row_format
        if not set(row_format.top_columns) <= set(names):
            try:
                held = resolve_format(names, "auto", {}, sample)
            except SfRayError as error:
                raise SfRayError(f"{flag} {corpus.name}: {error}") from None
        if corpus.file_type is FileType.JSON:
            held = as_in_json(held, sample)
        found.append(ExcludedFiles(corpus, held))
    return tuple(found)


def find_encoding(
    options: ScoringOptions, corpus: Corpus, sample: Sample, specs: Specs
) -> EncodingSpec:
    """Finds how the rows of a corpus become token ids: their format, the tokenizer, the template.

    Args:
        options: Of a command that scores.
        corpus: The corpus to be scored.
        sample: Some of its rows.
        specs: The classes to make specs of.

    Raises:
        SfRayError: The columns hold no text, or model or template cannot be used.
    """
    row_format = _row_format(options, corpus, sample)
    schema = None if corpus.file_type is FileType.JSON else corpus.schema
    model = _resolve_model(options)
    return specs.encoding(
        row_format,
        ModelSpec(
            options.model,
            model.fingerprint,
            model_storage_options(options),
            options.trust_remote_code,
        ),
        options.max_length,
        options.alignment,
        _template(options, model),
        options.turns,
        sample=tuple(sampled.row for sampled in sample.rows),
        newly_read=tuple(newly_read(row_format, schema, sample.rows)),
    )


def join_cluster(options: CorpusOptions, encoding: EncodingSpec) -> None:
    """Joins the cluster or starts one, and checks in the meantime that the encoder can be made.

    Raises:
        SfRayError: The cluster cannot be joined, or the tokenizer or template cannot be used.
    """
    with ThreadPoolExecutor(1) as threads:
        # Side by side: the check imports for seconds, and Ray's processes take seconds to start.
        checked = threads.submit(encoding.check)
        try:
            start_ray(options.ray_address)
            checked.result()
        except BaseException:
            PROCESS.stop()  # else the end of the run waits for a template that never ends
            raise


def scoring_spec_of(options: ScoringOptions, encoding: EncodingSpec, specs: Specs) -> ScoringSpec:
    """Finds all that decides the scores; `auto` device and type are those of the joined cluster."""
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    identity = {
        "model": encoding.model.fingerprint,
        "format": encoding.format.name,
        "columns": dict(encoding.format.columns),
        "template": encoding.template.identity,
        "turns": options.turns,
        "alignment": options.alignment,
        "max_length": options.max_length,
        "dtype": dtype,
        "unit_rows": options.unit_rows,
    }
    if encoding.newly_read:  # else left out: scores of older versions keep their id
        identity["newly_read"] = list(encoding.newly_read)
    engine = specs.engine.of(options, encoding.model, device, dtype)
    return ScoringSpec(encoding, engine, identity)


def _row_format(options: ScoringOptions, corpus: Corpus, sample: Sample) -> Format:
    names = field_names(corpus, sample.rows)
    with former_columns_named(corpus.table):
        row_format = resolve_format(names, options.format, options.columns, sample.rows)
    if corpus.file_type is FileType.JSON:
        row_format = as_in_json(row_format, sample.rows)
    unused = unused_text(row_format, sample.rows)
    if unused:
        say(f"columns not used: {in_words(unused)}")
    return row_format


def _resolve_model(options: ScoringOptions) -> Model:
    """Finds the model for the driver, which needs no more of it than its tokenizer and hash.

    Raises:
        UsageError: --max-length exceeds the model's window.
    """
    model = resolve_model(options.model, model_storage_options(options))
    window = context_window(model)
    if window is not None and options.max_length > window:
        raise UsageError(
            f"--max-length {options.max_length} exceeds the window of "
            f"{Location(options.model).public_uri}, {window} tokens; give --max-length {window} "
            "or less"
        )
    return model


def _template(options: ScoringOptions, model: Model) -> Template:
    name = options.template
    if name == "plain":
        return Template()
    if name == "chat":
        tokenizer = load_tokenizer(model, options.trust_remote_code)
        return Template(name, chat_template(model, tokenizer))
    where = Location(name, model_storage_options(options), options.storage_retry_s)
    try:
        return Template(where.public_uri, read_bytes(where).decode())
    except (SfRayError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--template {where.public_uri}: cannot be read ({error}); give 'plain', 'chat' or a "
            "file with a Jinja template"
        ) from None
