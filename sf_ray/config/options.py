"""The one definition of every option: name, type, default, bounds and help.

Flags, YAML keys and their validation all come from the models below. Components take plain
arguments from them; only `pipeline` sees a whole model.
"""

import json
import warnings
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sf_ray.config.quotas import Quota, quota_from, share_from


def _columns_from_text(value: object) -> object:
    """`prompt=question,completion=answer` -> a mapping; a mapping (YAML) passes unchanged."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",")]
    if any(not (field.strip() and sign and column.strip()) for field, sign, column in pairs):
        raise ValueError("expected field=column[,field=column]")
    return {field.strip(): column.strip() for field, _, column in pairs}


def _json_object_from_text(value: object) -> object:
    """A JSON object as text -> a mapping; a mapping (YAML) passes unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a JSON object ({error})") from None


def _actors_from_text(value: object) -> object:
    """`4` or `2:8` -> (min, max); a pair (YAML) passes unchanged."""
    if isinstance(value, int):
        return (value, value)
    if not isinstance(value, str):
        return value
    low, _, high = value.partition(":")
    return (low, high or low)


def _list_from_text(value: object) -> object:
    """`a,b` -> its parts; a list (YAML) passes unchanged."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Columns = Annotated[dict[str, str], BeforeValidator(_columns_from_text)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object_from_text)]
PositiveInt = Annotated[int, Field(ge=1)]
Actors = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_actors_from_text)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Fractions = Annotated[list[Fraction], BeforeValidator(_list_from_text), Field(min_length=1)]
Names = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    BeforeValidator(_list_from_text),
    Field(min_length=2),
]
# As many as a run keeps to be read.
ShownRows = Annotated[int, Field(ge=1, le=10)]
Share = Annotated[int | float, BeforeValidator(share_from), Field(gt=0)]
ColumnQuota = Annotated[Quota, BeforeValidator(quota_from)]
# The options of which exactly one says how much is kept.
HOW_MUCH = ("keep_fraction", "keep_count", "quota")


class Options(BaseModel):
    """Options of any command."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageOptions(Options):
    """How to reach storage."""

    storage_options: JsonObject = Field(
        default={},
        repr=False,
        description="fsspec options as JSON, e.g. an endpoint_url. Default: the environment.",
    )
    storage_retry_s: float = Field(
        default=300.0,
        ge=0,
        description="Seconds for which a storage request that fails is tried again.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Lines on standard error: text, or one JSON object a line.",
    )


class CorpusOptions(StorageOptions):
    """Where the corpus lies, and the cluster."""

    input: str = Field(description="The corpus: a directory, a file or a glob, as path or URI.")
    ray_address: str | None = Field(
        default=None,
        description="Ray cluster to join; 'local' starts one. Default: RAY_ADDRESS, then a "
        "cluster running on this machine, then a local one.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where models run; auto: cuda where the cluster has a GPU now, else cpu.",
    )
    on_bad_shard: Literal["fail", "skip"] = Field(
        default="fail",
        description="A shard that cannot be used: fail, or skip it whole, list it in the manifest "
        "and end with exit code 3.",
    )
    on_bad_line: Literal["fail", "skip"] = Field(
        default="fail",
        description="A line of a JSON shard that is no JSON object: fail, or give its row the "
        "status bad_row and never keep it.",
    )
    max_bad_fraction: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Fail when more than this fraction of all rows is bad_row, empty_answer, "
        "non_finite or engine_error.",
    )
    stall_s: float = Field(
        default=900.0,
        gt=0,
        description="Seconds without any progress after which work is started again, and given up "
        "the third time in a row.",
    )


class ModelOptions(CorpusOptions):
    """Which model scores."""

    model: str = Field(
        description="Weak model: hub name, local directory, URI of a directory, .gguf file or URI, "
        "or 'demo'."
    )


class ScoringSpecOptions(CorpusOptions):
    """What decides the scores beside the model, and what computes them."""

    format: Literal[
        "auto",
        "alpaca",
        "instruction-response",
        "question-answer",
        "prompt-completion",
        "messages",
        "sharegpt",
    ] = Field(default="auto", description="How a row holds what was said; auto: by its columns.")
    columns: Columns = Field(
        default={},
        description="Other column names, as prompt=q,completion=reply.text; a dot leads into a "
        "nested column.",
    )
    template: str = Field(
        default="plain",
        description="How messages become one text: 'plain' as in the paper, 'chat' for the "
        "model's own chat template, or a file (path or URI) with a Jinja template.",
    )
    turns: Literal["all", "last"] = Field(
        default="all", description="Which assistant turns of a chat are scored."
    )
    alignment: Literal["reference", "aligned"] = Field(
        default="reference",
        description="reference: the paper's numbers; aligned: both passes over the same tokens.",
    )
    max_length: int = Field(default=1024, ge=2, description="Window in tokens.")
    unit_rows: int = Field(
        default=2048, ge=1, description="Rows that are scored and committed together, at most."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="Matmul type; auto: float32 on CPU, float16 autocast on CUDA.",
    )
    token_budget: int | None = Field(
        default=None,
        ge=1,
        description="Tokens in one batch, padding included; halved when a GPU runs out of memory. "
        "Default: what fits the CPU's last cache (256 to 2048, in two-byte types to 4096), or half "
        "of the GPU's free memory (up to 65536).",
    )
    gpus_per_actor: float = Field(
        default=1.0, gt=0, description="GPU share of a scoring actor on CUDA."
    )
    cpus_per_actor: float | None = Field(
        default=None,
        gt=0,
        description="CPUs that Ray reserves for a scoring actor. Default: 1 beside a GPU, else "
        "all but one of a node's.",
    )
    threads_per_actor: int | None = Field(
        default=None,
        ge=1,
        description="Threads an actor computes with on CPU, up to 8 batches side by side. "
        "Default: as cpus_per_actor, or a node's CPUs where that is not set.",
    )
    no_compile: bool = Field(
        default=False,
        description="On CUDA run the model's layers as they are, instead of compiling them at the "
        "start of each actor; scoring takes twice as long.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Run Python code that comes with the model."
    )


class ScoringOptions(ScoringSpecOptions, ModelOptions):
    """What decides the scores, and how many actors compute them."""

    actors: Actors | None = Field(
        default=None,
        description="Scoring actors, N or MIN:MAX. Default: 1 up to one a GPU, or one a CPU node.",
    )


class SelectionOptions(CorpusOptions):
    """What is kept, and where it goes."""

    output: str = Field(description="Where filtered shards and the manifest go.")
    keep_fraction: float | None = Field(
        default=None, gt=0, le=1, description="Keep this fraction of all input rows."
    )
    keep_count: int | None = Field(default=None, ge=1, description="Keep this many rows.")
    quota: ColumnQuota | None = Field(
        default=None,
        description="Keep so much of each value of a column: source=0.1 (the same of each), or "
        "'source:{code: 0.2, chat: 5000, \"*\": 0.1}': a fraction of the value's input rows (with "
        'a point) or a count; "*": each other value, which else keeps nothing. meta.source is a '
        "nested column, null a value that is missing.",
    )
    max_ifd: float = Field(default=1.0, gt=0, description="Keep only rows with IFD below this.")
    min_ifd: float = Field(default=0.0, ge=0, description="Keep only rows with IFD from this on.")
    min_prompt_tokens: int | None = Field(
        default=None, ge=0, description="Keep only rows whose prompt has at least so many tokens."
    )
    max_prompt_tokens: int | None = Field(
        default=None, ge=0, description="Keep only rows whose prompt has at most so many tokens."
    )
    min_answer_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Keep only rows of which at least so many answer tokens were scored: a "
        "truncated row counts with what the window left of it.",
    )
    max_answer_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Keep only rows of which at most so many answer tokens were scored.",
    )
    drop_duplicates: bool = Field(
        default=False,
        description="Of rows with the same prompt and answer keep at most the best, wherever they "
        "are; before anything is counted for a fraction, count or quota.",
    )
    diversify_to: Share | None = Field(
        default=None,
        description="Of the rows that would be kept, keep those that best stand for all of them: "
        "this fraction of all input rows (with a point), or this many.",
    )
    encoder: str = Field(
        default="minilm",
        description="What tells --diversify-to how alike rows are: hub name, local directory or "
        "URI of a sentence encoder, or 'minilm' (all-MiniLM-L6-v2).",
    )
    export: Literal["llama-factory", "trl", "openai", "alpaca"] | None = Field(
        default=None,
        description="Write what is kept once more, as JSON Lines that this framework reads, to "
        "OUTPUT/export.",
    )
    order: Literal["input", "ifd"] = Field(
        default="input",
        description="input: filtered shards, as the input's are; ifd: highest IFD first, over "
        "files data/part-00000.parquet, ... of about 128 MB or a million rows, whichever is less.",
    )
    ifd_column: str = Field(
        default="ifd", min_length=1, description="Name of the column added to filtered shards."
    )
    report_by: str | None = Field(
        default=None,
        description="Column by whose values the report tells what was kept. Default: that of "
        "--quota, or 'source' where a Parquet or Arrow corpus has one.",
    )

    @model_validator(mode="after")
    def _one_way_to_say_how_much(self) -> "SelectionOptions":
        given = [name for name in HOW_MUCH if getattr(self, name) is not None]
        if len(given) > 1:
            flags = " and ".join("--" + name.replace("_", "-") for name in given)
            raise ValueError(f"{flags} exclude each other: give one")
        if not given:
            raise ValueError(
                "how much to keep is missing: give --keep-fraction, --keep-count or --quota"
            )
        return self

    @model_validator(mode="after")
    def _some_row_can_lie_within_the_bounds(self) -> "SelectionOptions":
        if self.min_ifd >= self.max_ifd:
            raise ValueError(
                f"--min-ifd {self.min_ifd} must be below --max-ifd {self.max_ifd}: "
                "no row can lie between them"
            )
        for what in ("prompt", "answer"):
            low, high = (getattr(self, f"{end}_{what}_tokens") for end in ("min", "max"))
            if low is not None and high is not None and low > high:
                raise ValueError(
                    f"--min-{what}-tokens {low} must not be above --max-{what}-tokens {high}: "
                    "no row can lie between them"
                )
        return self


class ScoreOptions(ScoringOptions):
    """Options of `sf-ray score`."""

    scores: str = Field(description="Where score pieces lie.")


class SelectOptions(SelectionOptions):
    """Options of `sf-ray select`."""

    scores: str = Field(description="Where score pieces lie.")
    scoring_id: str | None = Field(
        default=None, description="Which scores, where SCORES holds those of several models."
    )


class RunOptions(ScoringOptions, SelectionOptions):
    """Options of `sf-ray run`."""

    scores: str | None = Field(
        default=None, description="Where score pieces lie. Default: OUTPUT/scores."
    )


class CompareOptions(StorageOptions):
    """Options of `sf-ray compare`."""

    scores_a: str = Field(
        description="Scores of one model: a SCORES folder, or that of one of its sets."
    )
    scores_b: str = Field(description="Those of another model over the same corpus.")
    scoring_id_a: str | None = Field(
        default=None, description="Which scores, where SCORES_A holds several sets."
    )
    scoring_id_b: str | None = Field(
        default=None, description="Which scores, where SCORES_B holds several sets."
    )
    at: Fractions = Field(
        default="0.05,0.1,0.15",
        validate_default=True,
        description="Fractions of all common rows at which the selections are compared.",
    )
    max_ifd: float = Field(default=1.0, gt=0, description="Select only rows with IFD below this.")
    partial: bool = Field(
        default=False, description="Compare what there is of scores that are not complete."
    )
    page: str | None = Field(
        default=None, description="Write a page with the table and a plot to this path or URI."
    )


class ProbeOptions(ScoringSpecOptions):
    """Options of `sf-ray probe`."""

    models: Names = Field(
        description="Models to compare, separated by commas, each as --model takes it; the last "
        "one, the strongest, is what the others are held against."
    )
    sample: int = Field(default=1000, ge=10, description="Rows of the corpus that are scored.")
    seed: int = Field(default=0, ge=0, description="Another seed samples other rows.")
    keep_fraction: Fraction = Field(
        default=0.1, description="Fraction of the sample that each model selects."
    )
    max_ifd: float = Field(default=1.0, gt=0, description="Select only rows with IFD below this.")
    want_overlap: Fraction = Field(
        default=0.7,
        description="Share of its selection that a model must have in common with the strongest.",
    )
    scores: str | None = Field(
        default=None, description="Keep the scores of the sample here. Default: keep nothing."
    )

    @model_validator(mode="after")
    def _there_is_something_to_compare(self) -> "ProbeOptions":
        twice = [name for name in self.models if self.models.count(name) > 1]
        if twice:
            raise ValueError(f"--models names {twice[0]} twice: name each model once")
        if self.keep_fraction * self.sample < 1:
            raise ValueError(
                f"--keep-fraction {self.keep_fraction} of --sample {self.sample} is less than one "
                "row: give more of either"
            )
        return self


with warnings.catch_warnings():  # pydantic has a method `json`, which nobody should use any more
    warnings.simplefilter("ignore", UserWarning)

    class PlanOptions(ScoringOptions):
        """Options of `sf-ray plan`."""

        scores: str | None = Field(
            default=None, description="Where score pieces lie: only units without one are counted."
        )
        output: str | None = Field(
            default=None, description="The output of a run, in place of --scores OUTPUT/scores."
        )
        sample: int = Field(default=4096, ge=1, description="Rows that tokens are estimated from.")
        seed: int = Field(default=0, ge=0, description="Another seed samples other rows.")
        measure_s: float = Field(
            default=60.0, gt=0, description="Seconds for which an actor's speed is measured."
        )
        tokens_per_s: float | None = Field(
            default=None,
            gt=0,
            description="Tokens that an actor scores in a second, of both passes, repeats "
            "included; nothing is measured then.",
        )
        price_per_hour: float | None = Field(
            default=None, ge=0, description="Price of a GPU-hour, or on CPU of a node-hour."
        )
        json: bool = Field(  # type: ignore[assignment]
            default=False, description="Print one JSON object."
        )

        @model_validator(mode="after")
        def _speed_is_given_or_measured(self) -> "PlanOptions":
            if self.tokens_per_s is not None and "measure_s" in self.model_fields_set:
                raise ValueError(
                    "--tokens-per-s and --measure-s exclude each other: a speed that is given is "
                    "not measured"
                )
            return self


class ReportOptions(StorageOptions):
    """Options of `sf-ray report`."""

    output: str = Field(description="The output of a finished run.")


class ShowOptions(StorageOptions):
    """Options of `sf-ray show`."""

    place: str = Field(description="The output of a finished run, or a place of scores.")
    scoring_id: str | None = Field(
        default=None, description="Which scores, where the place holds those of several models."
    )
    top: ShownRows | None = Field(
        default=None, description="Show so many rows with the highest IFD of those that are kept."
    )
    around_cut: ShownRows | None = Field(
        default=None,
        description="Show so many of the last rows that are kept, and of the first left out.",
    )
    status: str | None = Field(default=None, description="Show some rows with this status.")


class DemoOptions(Options):
    """Options of `sf-ray demo`."""

    output: str = Field(
        default="demo-output", description="Directory for the demo's corpus and results."
    )
