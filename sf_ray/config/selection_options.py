"""Options of the commands that select: which rows are kept, where they go, and in which files.

As `options`, of which these are a part: each is defined once. Knows nothing of what it does.
"""

import math
from typing import Literal

from pydantic import Field, model_validator

from sf_ray.config.options import CorpusOptions, KeptScoresOptions, Options
from sf_ray.config.value_types import (
    By,
    ColumnQuota,
    Fraction,
    Places,
    RowsOrBytes,
    Score,
    Share,
    Size,
)

# Options that say how much to keep; a selection takes exactly one of them.
HOW_MUCH = ("keep_fraction", "keep_count", "keep_tokens", "quota")
# Scores of the method, which keeps no row whose prompt does not help at all (IFD of 1 and more).
_OF_THE_METHOD = ("ifd", "s-ifd", "loss-delta")


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
