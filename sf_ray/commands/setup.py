"""What every command over a corpus does first: plan it, check it, find what decides its scores.

Reads and checks, and writes nothing; knows neither units nor pieces.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from sf_ray.config.options import CorpusOptions, ScoringOptions, SelectionOptions
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.plan_cache import Sample, read_footers
from sf_ray.corpus.planning import Corpus, check_text_columns, plan_corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.sampling import field_names
from sf_ray.corpus.units import Footer
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
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
from sf_ray.runtime.cluster import resolve_device, start_ray
from sf_ray.runtime.log import say, timed
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.score_set import ScoreSet
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.group_column import find_column
from sf_ray.storage.files import overlap, read_bytes
from sf_ray.storage.location import Location

KnownFooters = dict[str, Footer]


@dataclass(frozen=True)
class ScoringSpec:
    """All that decides the scores of a corpus, wherever they go.

    Attributes:
        encoding: Rows -> token ids.
        engine: Token ids -> losses.
        identity: All of it, as a score set has it.
    """

    encoding: EncodingSpec
    engine: EngineSpec
    identity: dict[str, Any]


@dataclass(frozen=True)
class Specs:
    """What encodes, scores and embeds. Tests and benches give others, which cost nothing.

    Attributes:
        encoding, engine, embedder: The real ones, or classes derived from them.
    """

    encoding: type[EncodingSpec] = EncodingSpec
    engine: type[EngineSpec] = EngineSpec
    embedder: type[EmbedderSpec] = EmbedderSpec


def location_of(options: CorpusOptions, uri: str) -> Location:
    """A place that the options name, reached as they say."""
    return Location(uri, options.storage_options, options.storage_retry_s)


def check_places(options: CorpusOptions, scores: str | None, output: str | None) -> None:
    """Refuses places that lie inside each other.

    Raises:
        UsageError: Names two that do.
    """
    location = location_of(options, options.input)
    for other in filter(None, (output, scores)):
        if overlap(location, location_of(options, other)):
            raise UsageError(
                f"INPUT {location.public_uri} and {Location(other).public_uri} lie inside each "
                "other; the input is never written to: choose another place for the output"
            )
    if output and scores:
        data = Output(location_of(options, output)).data
        if overlap(data, location_of(options, scores)):
            raise UsageError(
                f"--scores {Location(scores).public_uri} lies in {data.public_uri}, where "
                "only filtered shards go: choose another place for the scores"
            )


def list_corpus(
    options: CorpusOptions, scores: Location | None, wall_s: dict[str, float]
) -> tuple[Corpus, KnownFooters]:
    """The corpus as it is now.

    Args:
        options: Where it is, and what to do about bad shards.
        scores: Where footers that an earlier run has read may lie.
        wall_s: Gets the seconds that it takes.

    Returns:
        The corpus, and the footers that were known before.

    Raises:
        SfRayError: There are no shards, or some that cannot be used.
    """
    with timed("plan", wall_s):
        known = read_footers(scores) if scores else {}
        corpus = plan_corpus(
            location_of(options, options.input), known, options.on_bad_shard == "skip"
        )
        size_mb = corpus.bytes / 1e6
        say(f"plan: {len(corpus.shards):,} shards, {corpus.rows:,} rows, {size_mb:,.1f} MB")
        for shard in corpus.skipped:
            say(f"note: skipping shard {shard.relative}: {shard.reason}")
    return corpus, known


def check_columns(corpus: Corpus, names: Sequence[str], options: SelectionOptions) -> None:
    """Refuses a corpus that has the added column already, or lacks that of the quotas.

    Raises:
        UsageError: Names the column.
    """
    name = options.ifd_column
    if name in names:
        raise UsageError(
            f"the corpus has a column {name!r} already; name the added one with --ifd-column"
        )
    asked = {
        "--quota": options.quota.column if options.quota else None,
        "--report-by": options.report_by,
    }
    for flag, column in asked.items():
        if column is None:
            continue
        find_column(corpus.schema, column, flag)
        if corpus.file_type is FileType.JSON and not {column, column.partition(".")[0]} & set(
            names
        ):
            raise UsageError(
                f"{flag}: no row of a sample has the field {column!r}; they have {list(names)}"
            )


def find_encoding(
    options: ScoringOptions, corpus: Corpus, sample: Sample, specs: Specs
) -> EncodingSpec:
    """How the rows of a corpus become token ids.

    Args:
        options: Of a command that scores.
        corpus: What is scored.
        sample: Some of its rows.
        specs: What to make it of.

    Raises:
        SfRayError: Columns, model or template do not do.
    """
    names = field_names(corpus, sample.rows)
    row_format = resolve_format(names, options.format, options.columns, sample.rows)
    if corpus.file_type is FileType.JSON:
        # A row may have an optional field that no sampled row has.
        optional = {field: field for field in row_format.optional}
        row_format = replace(row_format, columns=optional | dict(row_format.columns))
    if not row_format.is_chat:
        check_text_columns(corpus, row_format.columns.values())
    model = _resolve_model(options)
    return specs.encoding(
        row_format,
        ModelSpec(
            options.model,
            model.fingerprint,
            options.storage_options,
            options.trust_remote_code,
        ),
        options.max_length,
        options.alignment,
        _template(options, model),
        options.turns,
    )


def join_cluster(options: CorpusOptions, encoding: EncodingSpec) -> None:
    """Joins the cluster or starts one, and checks meanwhile that the encoder can be made.

    Raises:
        SfRayError: The cluster cannot be joined, or the tokenizer or template does not do.
    """
    with ThreadPoolExecutor(1) as threads:
        # The check imports for seconds, while Ray's processes start for seconds.
        checked = threads.submit(encoding.check)
        start_ray(options.ray_address)
        checked.result()


def scoring_spec_of(options: ScoringOptions, encoding: EncodingSpec, specs: Specs) -> ScoringSpec:
    """All that decides the scores, on the cluster that was joined."""
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
    engine = specs.engine.of(options, encoding.model, device, dtype)
    return ScoringSpec(encoding, engine, identity)


def _template(options: ScoringOptions, model: Model) -> Template:
    name = options.template
    if name == "plain":
        return Template()
    if name == "chat":
        return Template(
            name, chat_template(model, load_tokenizer(model, options.trust_remote_code))
        )
    where = location_of(options, name)
    try:
        return Template(where.public_uri, read_bytes(where).decode())
    except (SfRayError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--template {where.public_uri}: cannot be read ({error}); give 'plain', 'chat' or a "
            "file with a Jinja template"
        ) from None


def _resolve_model(options: ScoringOptions) -> Model:
    """The model on the driver's node, which needs no more of it than its tokenizer and hash."""
    model = resolve_model(options.model, options.storage_options)
    window = context_window(model)
    if window is not None and options.max_length > window:
        raise UsageError(
            f"--max-length {options.max_length} exceeds the window of "
            f"{Location(options.model).public_uri}, {window} tokens; give --max-length {window} "
            "or less"
        )
    return model


def without_bad(options: CorpusOptions, corpus: Corpus, score_set: ScoreSet) -> Corpus:
    """The corpus without the shards that an earlier run could not read, where they are skipped."""
    return corpus.without(score_set.bad_shards()) if options.on_bad_shard == "skip" else corpus
