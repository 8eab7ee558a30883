"""Options of the commands, each defined once: name, type, default, bounds and help.

Those that say what is kept are in `selection_options`, those of studies in `study_options`. Flags,
YAML keys, their validation and docs/options.md all come from these models. Knows nothing of what an
option does.
"""

import warnings
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sf_ray.config.value_types import (
    Actors,
    Columns,
    Fraction,
    Fractions,
    JsonObject,
    Names,
    ShownRows,
)


class Options(BaseModel):
    """Base of the options of every command."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageOptions(Options):
    """How to reach storage."""

    storage_options: JsonObject = Field(
        default={},
        repr=False,
        description="fsspec options of every bucket, as JSON, e.g. an endpoint_url. Default: the "
        "environment.",
    )
    storage_retry_s: float = Field(
        default=300.0,
        ge=0,
        description="For how many seconds a failing storage request is retried.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Format of the log on standard error: text, or one JSON object a line.",
    )


class ClusterOptions(StorageOptions):
    """The cluster, and what its nodes read."""

    model_storage_options: JsonObject | None = Field(
        default=None,
        repr=False,
        description="fsspec options of the model, the encoder and the template alone, as JSON. "
        "Default: those of --storage-options, in whose place they stand.",
    )
    ray_address: str | None = Field(
        default=None,
        description="Ray cluster to join; 'local' starts one. Default: RAY_ADDRESS, then a "
        "cluster running on this machine, then a local one.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where models run; auto: cuda where the cluster has a GPU now, else cpu.",
    )
    max_row_bytes: int = Field(
        default=32 << 20,
        ge=1024,
        description="Largest row, in bytes, once it is unpacked; a shard with a larger one is bad. "
        "Bounds what a small file can make of the memory.",
    )
    stall_s: float = Field(
        default=900.0,
        gt=0,
        description="Start the work again after this many seconds without progress, and fail the "
        "third time in a row.",
    )


class CorpusOptions(ClusterOptions):
    """Where the corpus lies, and what may be wrong with it."""

    input: str = Field(
        description="The corpus: a directory, a file or a glob, as path or URI; or a table: "
        "iceberg://CATALOG/NAMESPACE.TABLE, delta://URI or lance://URI, with @SNAPSHOT for an "
        "earlier state."
    )
    input_storage_options: JsonObject | None = Field(
        default=None,
        repr=False,
        description='fsspec options of INPUT alone, as JSON, e.g. {"anon": true} for a public '
        "bucket. Default: those of --storage-options, in whose place they stand.",
    )
    on_bad_shard: Literal["fail", "skip"] = Field(
        default="fail",
        description="What to do with a shard that cannot be used: fail, or skip the whole shard, "
        "list it in the manifest and end with exit code 3.",
    )
    on_bad_line: Literal["fail", "skip"] = Field(
        default="fail",
        description="What to do with a line of a JSON shard that is not a JSON object: fail, or "
        "give its row the status bad_row and never keep it.",
    )
    max_bad_fraction: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Fail when more than this fraction of all rows is bad: docs/concepts.md marks "
        "the statuses that count. 1 also scores a corpus in whose sample no row can be scored.",
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
    ] = Field(
        default="auto",
        description="How a row holds the conversation; auto: recognised by the columns.",
    )
    columns: Columns = Field(
        default={},
        description="Columns whose names differ from the format's, as "
        "prompt=q,completion=reply.text; a dot leads into a nested column.",
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
    max_length: int = Field(
        default=1024, ge=2, description="Window in tokens; a longer example is truncated."
    )
    unit_rows: int = Field(
        default=2048, ge=1, description="How many rows, at most, are scored and committed together."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="Matmul type; auto: float32 on CPU, float16 autocast on CUDA.",
    )
    token_budget: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens in one batch, padding included; halved when a GPU runs out of "
        "memory. Default: what fits the CPU's last cache (256 to 2048, in two-byte types to 4096), "
        "or half of the GPU's free memory (up to 65536).",
    )
    gpus_per_actor: float = Field(
        default=1.0,
        gt=0,
        description="GPUs that Ray reserves for a scoring actor on CUDA; at 0.5 two share one.",
    )
    cpus_per_actor: float | None = Field(
        default=None,
        gt=0,
        description="CPUs that Ray reserves for a scoring actor. Default: at most 1 on CUDA; on "
        "CPU all CPUs of a node but one.",
    )
    threads_per_actor: int | None = Field(
        default=None,
        ge=1,
        description="Threads that an actor computes with on CPU, up to 8 batches side by side. "
        "Default: cpus_per_actor, or all CPUs of a node where that is not set.",
    )
    no_compile: bool = Field(
        default=False,
        description="On CUDA do not compile the model's layers at the start of each actor; scoring "
        "then takes twice as long.",
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


class KeptScoresOptions(ScoringOptions):
    """What is kept of the scores, beside the scores."""

    token_losses: bool = Field(
        default=False,
        description="Also keep how far apart the losses of each answer token are in the two "
        "passes, which --rank-by s-ifd needs. Units that have scores without them are scored "
        "again; their scores stay as they are.",
    )


class ScoreOptions(KeptScoresOptions):
    """Options of `sf-ray score`."""

    scores: str = Field(description="Where score pieces lie.")


class CompareOptions(StorageOptions):
    """Options of `sf-ray compare`."""

    scores_a: str = Field(
        description="Scores of one model: a SCORES folder, or the folder of one set in it."
    )
    scores_b: str = Field(description="Scores of another model over the same corpus.")
    scoring_id_a: str | None = Field(
        default=None, description="Which scores to use, where SCORES_A holds several sets."
    )
    scoring_id_b: str | None = Field(
        default=None, description="Which scores to use, where SCORES_B holds several sets."
    )
    at: Fractions = Field(
        default="0.05,0.1,0.15",
        validate_default=True,
        description="Fractions of all common rows at which the selections are compared.",
    )
    max_ifd: float = Field(default=1.0, gt=0, description="Select only rows with IFD below this.")
    partial: bool = Field(
        default=False, description="Compare scores that are not complete, as far as they exist."
    )
    page: str | None = Field(
        default=None, description="Write a page with the table and a plot to this path or URI."
    )


class ProbeOptions(ScoringSpecOptions):
    """Options of `sf-ray probe`."""

    models: Names = Field(
        description="Models to compare, separated by commas, each as --model takes it. Put the "
        "strongest last: the others are compared with it."
    )
    sample: int = Field(default=1000, ge=10, description="How many rows of the corpus are scored.")
    seed: int = Field(
        default=0, ge=0, description="Seed of the sample; another seed draws other rows."
    )
    keep_fraction: Fraction = Field(
        default=0.1, description="Fraction of the sample that each model selects."
    )
    max_ifd: float = Field(default=1.0, gt=0, description="Select only rows with IFD below this.")
    want_overlap: Fraction = Field(
        default=0.7,
        description="Fraction of a model's selection that the strongest model must select too.",
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


with warnings.catch_warnings():  # pydantic warns that `json` hides its deprecated method
    warnings.simplefilter("ignore", UserWarning)

    class PlanOptions(ScoringOptions):
        """Options of `sf-ray plan`."""

        scores: str | None = Field(
            default=None, description="Where score pieces lie: only units without one are counted."
        )
        output: str | None = Field(
            default=None, description="OUTPUT of a run, instead of --scores OUTPUT/scores."
        )
        sample: int = Field(
            default=4096, ge=1, description="How many rows the estimate of tokens is made from."
        )
        seed: int = Field(
            default=0, ge=0, description="Seed of the sample; another seed draws other rows."
        )
        measure_s: float = Field(
            default=60.0, gt=0, description="Seconds for which an actor's speed is measured."
        )
        tokens_per_s: float | None = Field(
            default=None,
            gt=0,
            description="Tokens that one actor scores per second, in both passes, repeated tokens "
            "included. Nothing is measured then.",
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

    place: str = Field(description="OUTPUT of a finished run, or SCORES.")
    scoring_id: str | None = Field(
        default=None,
        description="Which scores to show, where SCORES holds the scores of several models.",
    )
    top: ShownRows | None = Field(
        default=None, description="Show this many of the kept rows, highest IFD first."
    )
    around_cut: ShownRows | None = Field(
        default=None,
        description="Show this many of the last rows kept, and as many of the first rows left out.",
    )
    status: str | None = Field(default=None, description="Show some rows with this status.")


class DemoOptions(Options):
    """Options of `sf-ray demo`."""

    output: str = Field(
        default="demo-output", description="Directory for the demo's corpus and results."
    )
