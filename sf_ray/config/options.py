"""Every option of every command, defined once: name, type, default, bounds and help.

Flags, YAML keys, their validation and docs/options.md all come from the models below. Knows nothing
of what an option does.
"""

import math
import warnings
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sf_ray.config.value_types import (
    Actors,
    By,
    ColumnQuota,
    Columns,
    Fraction,
    Fractions,
    JsonObject,
    Names,
    Places,
    RowsOrBytes,
    Score,
    Share,
    ShownRows,
    Size,
)

# Options that say how much to keep; a selection takes exactly one of them.
HOW_MUCH = ("keep_fraction", "keep_count", "keep_tokens", "quota")
# Scores of the method, which keeps no row whose prompt does not help at all (IFD of 1 and more).
_OF_THE_METHOD = ("ifd", "s-ifd", "loss-delta")


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


class LeftOutOptions(Options):
    """Which rows are left out because of what they say, whatever their scores."""

    drop_near_duplicates: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Of rows that are nearly the same, keep the best: a row is dropped if it is at "
        "least this similar to a better one that is itself kept. Near copies are dropped before a "
        "fraction, count or quota is filled.",
    )
    near_duplicates_by: Literal["embedding", "text"] = Field(
        default="embedding",
        description="What --drop-near-duplicates compares. embedding: the cosine of embeddings by "
        "--encoder; text: the share of runs of three words that two rows have in common (Jaccard, "
        "estimated by MinHash), which needs no encoder.",
    )
    drop_overlap_with: Places = Field(
        default=[],
        description="Keep no row that shares 13 words in a row with these evaluation sets, or, if "
        "it has fewer, all of its words: a directory, a file or a glob, or several with commas "
        "between.",
    )
    encoder: str = Field(
        default="minilm",
        description="Sentence encoder that measures how similar rows are, for "
        "--drop-near-duplicates and --diversify-to: hub name, local directory or URI, or 'minilm' "
        "(all-MiniLM-L6-v2).",
    )

    @model_validator(mode="after")
    def _near_duplicates_are_dropped(self) -> "LeftOutOptions":
        if "near_duplicates_by" in self.model_fields_set and self.drop_near_duplicates is None:
            raise ValueError(
                "--near-duplicates-by belongs to --drop-near-duplicates: give both, or neither"
            )
        return self

    @property
    def compares_embeddings(self) -> bool:
        """Whether near copies are looked for among embeddings."""
        return self.drop_near_duplicates is not None and self.near_duplicates_by == "embedding"

    @property
    def compares_texts(self) -> bool:
        """Whether near copies are looked for among texts."""
        return self.drop_near_duplicates is not None and self.near_duplicates_by == "text"


class SelectionOptions(CorpusOptions, LeftOutOptions):
    """What is kept, and where it goes."""

    output: str = Field(description="Where filtered shards and the manifest go.")
    keep_fraction: float | None = Field(
        default=None, gt=0, le=1, description="Keep this fraction of all input rows."
    )
    keep_count: int | None = Field(default=None, ge=1, description="Keep this many rows.")
    keep_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Keep the best rows until they have this many tokens of prompt and answer, "
        "inside the window of the scoring; the row that reaches the number is the last.",
    )
    quota: ColumnQuota | None = Field(
        default=None,
        description="How much to keep of each value of a column: source=0.1 (the same of every "
        "value), or 'source:{code: 0.2, chat: 5000, \"*\": 0.1}': a fraction of the value's input "
        'rows (with a point) or a count. "*" stands for all other values, of which else nothing is '
        "kept. meta.source is a nested column, null a missing value.",
    )
    by: By = Field(
        default="ifd",
        description="Which rows are the best. ifd: the highest --rank-by; ifd-low: the lowest; "
        "random: by a hash of shard, row and --seed; longest: the most answer tokens; "
        "length-normalised: the highest score among answers of one length, as many of each length "
        "as it has of the eligible rows; length-matched: random rows with answers as long as those "
        "that ifd keeps.",
    )
    rank_by: Score = Field(
        default="ifd",
        description="The score that --by ifd, ifd-low and the two by length look at: IFD; S-IFD, "
        "which is IFD over the tokens of --token-share, and needs scores that were made with "
        "--token-losses; the logarithm of IFD, which is the difference of the losses; one of the "
        "two perplexities; the number of answer tokens.",
    )
    token_share: Fraction = Field(
        default=0.75,
        description="For --rank-by s-ifd: the share of all answer tokens of the corpus that count, "
        "those whose losses the prompt changes most.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Another seed, other random rows: see --by."
    )
    max_ifd: float | None = Field(
        default=None,
        gt=0,
        description="Keep only rows with IFD below this. Default: 1 where rows of the highest IFD "
        "or S-IFD are kept, of all lengths together or of each; else there is no bound.",
    )
    min_ifd: float = Field(default=0.0, ge=0, description="Keep only rows with at least this IFD.")
    min_prompt_tokens: int | None = Field(
        default=None, ge=0, description="Keep only rows whose prompt has at least this many tokens."
    )
    max_prompt_tokens: int | None = Field(
        default=None, ge=0, description="Keep only rows whose prompt has at most this many tokens."
    )
    min_answer_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Keep only rows with at least this many scored answer tokens; of a truncated "
        "row only the tokens inside the window count.",
    )
    max_answer_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Keep only rows with at most this many scored answer tokens.",
    )
    drop_duplicates: bool = Field(
        default=False,
        description="Of all rows with the same prompt and answer, in whichever shards, keep at "
        "most the best one. Copies are dropped before a fraction, count or quota is filled.",
    )
    exclude: Places = Field(
        default=[],
        description="Keep no row whose prompt and answer stand, word for word, in a row of these "
        "files: a directory, a file or a glob, or several with commas between. For evaluation "
        "sets, and the held-out rows of a study.",
    )
    diversify_to: Share | None = Field(
        default=None,
        description="Of the rows that would be kept, keep the subset that represents them best: "
        "this fraction of all input rows (with a point), or this many rows.",
    )
    export: Literal["llama-factory", "trl", "openai", "alpaca"] | None = Field(
        default=None,
        description="Write the kept rows a second time, to OUTPUT/export, as JSON Lines that this "
        "framework reads.",
    )
    order: Literal["input", "ifd"] = Field(
        default="input",
        description="input: one filtered shard for each input shard, rows in input order; ifd: "
        "highest IFD first, whatever --by keeps, in files data/part-00000.parquet, ... of about "
        "128 MB (or --file-size) or a million rows, whichever is less.",
    )
    file_size: Size | None = Field(
        default=None,
        description="Write files data/part-00000.parquet, ... of about this size, e.g. 256MB, "
        "instead of one for each input shard; their rows follow each other as in the input, or by "
        "--order ifd.",
    )
    compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] | None = Field(
        default=None,
        description="Compression of the files written. Default: zstd for Parquet; for other shards "
        "that of the input.",
    )
    row_group_size: RowsOrBytes | None = Field(
        default=None,
        description="Size of a row group of Parquet, or a batch of Arrow: rows (100000), or bytes "
        "in memory (64MB), which is the default.",
    )
    ifd_column: str = Field(
        default="ifd", min_length=1, description="Name of the column added to filtered shards."
    )
    report_by: str | None = Field(
        default=None,
        description="Column; the report shows how much was kept of each of its values. Default: "
        "the column of --quota, or 'source' where a Parquet or Arrow corpus has it.",
    )

    @model_validator(mode="after")
    def _one_way_to_say_how_much(self) -> "SelectionOptions":
        given = [name for name in HOW_MUCH if getattr(self, name) is not None]
        if len(given) > 1:
            flags = " and ".join("--" + name.replace("_", "-") for name in given)
            raise ValueError(f"{flags} exclude each other: give one")
        if not given:
            raise ValueError(
                "how much to keep is missing: give --keep-fraction, --keep-count, --keep-tokens or "
                "--quota"
            )
        return self

    @model_validator(mode="after")
    def _a_score_is_looked_at(self) -> "SelectionOptions":
        if self.by in ("random", "longest") and self.rank_by != "ifd":
            raise ValueError(f"--by {self.by} looks at no score: leave --rank-by out")
        if "token_share" in self.model_fields_set and self.rank_by != "s-ifd":
            raise ValueError("--token-share belongs to --rank-by s-ifd: give both, or neither")
        return self

    @property
    def best_below(self) -> float:
        """The rows that a score ranks best have an IFD below this; infinity for no bound."""
        if self.max_ifd is not None:
            return self.max_ifd
        return 1.0 if self.by != "ifd-low" and self.rank_by in _OF_THE_METHOD else math.inf

    @property
    def kept_below(self) -> float:
        """Kept rows have an IFD below this; infinity for no bound."""
        if self.max_ifd is None and self.by in ("random", "longest", "length-matched"):
            return math.inf
        return self.best_below

    @model_validator(mode="after")
    def _some_row_can_lie_within_the_bounds(self) -> "SelectionOptions":
        below = self.best_below if self.by == "length-matched" else self.kept_below
        if self.min_ifd >= below:
            raise ValueError(
                f"--min-ifd {self.min_ifd} must be below --max-ifd {below}: "
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


class CommitOptions(SelectionOptions):
    """Where the kept rows are committed to, beside the files."""

    commit_to: str | None = Field(
        default=None,
        description="When the output is whole, commit the kept rows to this table or data set too: "
        "iceberg://CATALOG/namespace.table[@BRANCH], delta://URI or "
        "hf://datasets/ORG/NAME[@BRANCH]. The same request is committed once.",
    )
    commit_mode: Literal["append", "overwrite"] = Field(
        default="append",
        description="append: put the rows beside those that are there; overwrite: in their place. "
        "A table that is not there is made.",
    )

    @model_validator(mode="after")
    def _a_mode_has_a_place(self) -> "CommitOptions":
        if "commit_mode" in self.model_fields_set and self.commit_to is None:
            raise ValueError("--commit-mode belongs to --commit-to: give both, or neither")
        return self


class ScoreOptions(KeptScoresOptions):
    """Options of `sf-ray score`."""

    scores: str = Field(description="Where score pieces lie.")


class SelectOptions(CommitOptions):
    """Options of `sf-ray select`."""

    scores: str = Field(description="Where score pieces lie.")
    scoring_id: str | None = Field(
        default=None,
        description="Which scores to use, where SCORES holds the scores of several models.",
    )


class RunOptions(KeptScoresOptions, CommitOptions):
    """Options of `sf-ray run`."""

    exact: bool = Field(
        default=False,
        description="Keep the rows that float32 would keep, with a faster --dtype: rows near the "
        "cut-off, or near a bound on IFD, are scored again in float32.",
    )
    exact_sample: int = Field(
        default=256,
        ge=1,
        description="Rows that --exact scores in both types, to see how far the faster one is off.",
    )
    scores: str | None = Field(
        default=None, description="Where score pieces lie. Default: OUTPUT/scores."
    )

    @model_validator(mode="after")
    def _exact_scores_decide(self) -> "RunOptions":
        if self.exact and (self.by, self.rank_by) != ("ifd", "ifd"):
            raise ValueError(
                "--exact keeps the rows of the highest IFD: leave --by and --rank-by out"
            )
        if self.exact and self.drop_near_duplicates is not None:
            raise ValueError(
                "--exact scores again what lies near the cut-off, but which of two near copies is "
                "the better one may be decided by an error of the fast type anywhere: leave "
                "--drop-near-duplicates out, or score in --dtype float32"
            )
        return self

    @model_validator(mode="after")
    def _token_losses_are_kept_where_they_rank(self) -> "RunOptions":
        if self.rank_by == "s-ifd" and not self.token_losses:
            raise ValueError("--rank-by s-ifd needs the losses of tokens: add --token-losses")
        return self


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
