"""The manifest of a finished run, as a typed and versioned record: OUTPUT/manifest.json.

A public format: docs/manifest.schema.json is its JSON Schema, which `make docs` writes from these
models. This module alone reads and writes the JSON. It does not know how a run fills a manifest
(`run_manifest`) or where the file lies (`layout`). No Ray, no files.

Keys have been added since version 1 began; none was renamed or removed. So keys have defaults,
which a manifest of an older sf_ray takes for the keys that it lacks. Keys that are unknown here are
those of a newer sf_ray, and are ignored.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from sf_ray.errors import SfRayError
from sf_ray.output.manifest_left_out import ExcludedInput, NearDuplicates, SharedWords
from sf_ray.output.manifest_scores import Count, Record, Scores
from sf_ray.storage.json_files import parse_json
from sf_ray.text.printable import printable_json

# Bytes of the largest manifest that is read: one of millions of shards.
MOST_BYTES: Final = 1 << 28
# Raised when a key is renamed, removed or gets another meaning; not when one is added.
MANIFEST_VERSION: Final = 1


_SCORES_IN_WORDS: Final[Mapping[str | None, str]] = {
    "ifd": "IFD",
    "s-ifd": "S-IFD",
    "loss-delta": "ln IFD",
    "ppl-direct": "perplexity of the answer alone",
    "ppl-conditioned": "perplexity behind the prompt",
    "answer-tokens": "answer tokens",
}


class SkippedInput(Record):
    """A shard of the corpus that could not be used."""

    path: str = Field(description="Path of the shard below INPUT.")
    reason: str = Field(description="What is wrong with the shard.")


class InputTable(Record):
    """The state of a table whose data files are the shards."""

    format: str = Field(description="`iceberg`, `delta` or `lance`.")
    snapshot: str = Field(description="Id of the snapshot, or number of the version.")


class Input(Record):
    """The corpus that a run read."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("table"))

    uri: str = Field(
        default="", description="Path or URI, or a table; without user name and password."
    )
    table: InputTable | SkipJsonSchema[None] = Field(
        default=None, description="Missing where INPUT is no table."
    )
    fingerprint: str = Field(
        default="", description="Changes when a shard is added, changed, removed or skipped."
    )
    shards: Count = Field(default=0, description="Number of shards, without the skipped ones.")
    rows: Count = Field(default=0, description="Rows of those shards.")
    bytes: Count = Field(default=0, description="Size of those shards.")
    skipped_shards: tuple[SkippedInput, ...] = Field(
        default=(), description="Shards that `--on-bad-shard skip` left out."
    )


class LastKept(Record):
    """The last row that a cut-off keeps.

    Rows with a higher IFD are kept (`by` may say otherwise), and of rows with the same IFD those
    that come earlier in the corpus.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    ifd: float | None = Field(description="IFD of the row; null where rows are not ranked by it.")
    value: float | SkipJsonSchema[None] = Field(
        default=None, description="What the row is ranked by, where that is not IFD."
    )
    shard: str = Field(description="Path of the row's shard below INPUT.")
    row: Count = Field(description="Number of the row in its shard, from 0.")


class GroupResult(Record):
    """The rows with one value of the quota's column."""

    asked: int | float | None = Field(
        description="Quota of the value: a count of rows (integer) or a fraction of `rows`; null "
        "where the value has no quota."
    )
    rows: Count = Field(description="Rows of the corpus with the value.")
    eligible: Count = Field(description="Rows among them that may be kept.")
    wanted: Count = Field(description="Rows that the quota asks for.")
    kept: Count = Field(description="Rows that the cut-off keeps, before `--diversify-to`.")
    cutoff: LastKept | None = Field(description="The cut-off; null where no row is kept.")


class Diversity(Record):
    """The choice of `--diversify-to` among the rows that the cut-offs keep.

    Where the cut-offs keep no more rows than `diversify_to` asks for, all of them are kept, and the
    keys from `wanted_rows` on are missing.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    diversify_to: int | float = Field(
        description="A count of rows (integer) or a fraction of all input rows."
    )
    encoder: str = Field(description="Name, path or URI of the encoder, without credentials.")
    encoder_fingerprint: str = Field(description="Hash of the encoder's files.")
    of_rows: Count = Field(description="Rows that the cut-offs keep.")
    wanted_rows: Count | SkipJsonSchema[None] = Field(
        default=None, description="Rows that `diversify_to` asks for."
    )
    objective: float | SkipJsonSchema[None] = Field(
        default=None,
        description="Facility location: the sum over `of_rows` of each row's cosine to the chosen "
        "row that is most similar to it. A lower bound where `is_exact` is false.",
    )
    mean_similarity: float | SkipJsonSchema[None] = Field(
        default=None, description="`objective` / `of_rows`."
    )
    is_exact: bool | SkipJsonSchema[None] = Field(
        default=None, description="Whether greedy chose among all rows at once; else by parts."
    )
    ratio_to_exact: float | SkipJsonSchema[None] = Field(
        default=None,
        description="Objective by parts / objective by exact greedy, on a sample of the rows.",
    )


_OPTIONAL_OF_SELECTION = (
    "keep_tokens",
    "by",
    "rank_by",
    "seed",
    "excluded",
    "excluded_rows",
    "overlap_with",
    "overlapping_rows",
    "overlaps",
    "near_duplicates",
    "s_ifd",
)


def _say_what_is_optional(schema: dict[str, Any]) -> None:
    for key in _OPTIONAL_OF_SELECTION:
        schema["required"].remove(key)


class SelectiveIfdResult(Record):
    """The tokens that S-IFD looks at."""

    token_share: float = Field(description="The share of all tokens that was asked for.")
    tokens: Count = Field(description="Answer tokens of the corpus that both passes score.")
    threshold_nats: float = Field(
        description="Those count whose losses differ by at least this in the two passes."
    )
    rows_without: Count = Field(
        description="Rows within the bounds of which no token counts: they have no S-IFD and are "
        "not ranked."
    )


class SelectionResult(Record):
    """What was asked of the selection, and the rows that it keeps.

    What later versions have added is missing where it says nothing: the highest IFD is the best,
    and no files are excluded.
    """

    model_config = ConfigDict(json_schema_extra=_say_what_is_optional)

    keep_fraction: float | None = Field(
        default=None, description="Fraction of all input rows to keep."
    )
    keep_fraction_of: str = Field(
        default="all input rows", description="The rows that `keep_fraction` is a fraction of."
    )
    keep_count: Count | None = Field(default=None, description="Number of rows to keep.")
    keep_tokens: Count | None = Field(
        default=None, description="Tokens of prompt and answer that the kept rows are to have."
    )
    quota: Mapping[str, Mapping[str, int | float]] | None = Field(
        default=None,
        description="One column -> its values -> a count of rows (integer) or a fraction of the "
        "value's rows; `*` stands for every other value.",
    )
    min_ifd: float = Field(default=0.0, description="The least IFD of an eligible row.")
    max_ifd: float | None = Field(
        default=1.0, description="The IFD of an eligible row is below this; null for no bound."
    )
    min_prompt_tokens: Count | None = Field(default=None, description="Null for no bound.")
    max_prompt_tokens: Count | None = Field(default=None, description="Null for no bound.")
    min_answer_tokens: Count | None = Field(default=None, description="Null for no bound.")
    max_answer_tokens: Count | None = Field(default=None, description="Null for no bound.")
    dropped_duplicates: Count | None = Field(
        default=None,
        description="Copies of better rows, which are not eligible; null without "
        "`--drop-duplicates`.",
    )
    excluded: tuple[ExcludedInput, ...] = Field(default=(), description="The files of `--exclude`.")
    excluded_rows: Count = Field(
        default=0, description="Rows that stand in those files, which are not eligible."
    )
    overlap_with: tuple[ExcludedInput, ...] = Field(
        default=(), description="The evaluation sets of `--drop-overlap-with`."
    )
    overlapping_rows: Count = Field(
        default=0,
        description="Rows that share 13 words in a row with those, which are not eligible.",
    )
    overlaps: tuple[SharedWords, ...] = Field(
        default=(), description="Some of these rows, the first of the corpus."
    )
    near_duplicates: NearDuplicates | SkipJsonSchema[None] = Field(
        default=None, description="What `--drop-near-duplicates` found."
    )
    by: str = Field(default="ifd", description="Which rows are the best: a value of `--by`.")
    rank_by: str | None = Field(
        default="ifd",
        description="The score that `by` looks at: a value of `--rank-by`; null where it looks at "
        "none.",
    )
    seed: Count | None = Field(
        default=None, description="`--seed`, where `by` keeps rows at random; else null."
    )
    s_ifd: SelectiveIfdResult | SkipJsonSchema[None] = Field(
        default=None, description="What `rank_by` s-ifd looks at."
    )
    order: str = Field(default="input", description="Order of the output: `input` or `ifd`.")
    wanted_rows: Count = Field(default=0, description="Rows that were asked for.")
    eligible_rows: Count = Field(default=0, description="Rows that may be kept.")
    cutoff: LastKept | None = Field(
        default=None,
        description="The cut-off; null where no row is kept. With a quota null too: each group has "
        "its own.",
    )
    groups: Mapping[str, GroupResult] | None = Field(
        default=None, description="Value of the quota's column -> its rows; null without a quota."
    )
    diversity: Diversity | None = Field(default=None, description="Null without `--diversify-to`.")
    kept_rows: Count = Field(default=0, description="Rows of the output.")

    @property
    def ineligible_copies(self) -> int:
        """Rows that are not eligible because a better row is equal or near."""
        near = self.near_duplicates
        return (self.dropped_duplicates or 0) + (near.dropped_rows if near else 0)

    @property
    def ranked_by(self) -> str:
        """What decides which rows are the best, in words."""
        if self.by == "random":
            return "random number"
        return _SCORES_IN_WORDS.get("answer-tokens" if self.by == "longest" else self.rank_by, "")

    @property
    def which_are_kept(self) -> str:
        """Which rows are the best, in a sentence."""
        if (self.by, self.rank_by) == ("ifd", "ifd"):
            return "High values below 1 are kept: much is left to learn."
        score = _SCORES_IN_WORDS.get(self.rank_by, "")
        return {
            "ifd": f"Kept are the rows with the highest {score}.",
            "ifd-low": f"Kept are the rows with the lowest {score}.",
            "random": "Kept are random rows.",
            "longest": "Kept are the rows with the longest answers.",
            "length-normalised": "Kept are, of each length of answers, the rows with the highest "
            f"{score}.",
            "length-matched": "Kept are random rows whose answers are as long as those of the rows "
            f"with the highest {score}.",
        }.get(self.by, "")

    @property
    def rows_within_cutoff(self) -> int:
        """Rows that the cut-offs keep, before `--diversify-to`."""
        return self.diversity.of_rows if self.diversity else self.kept_rows


class WrittenFile(Record):
    """A file that a run wrote."""

    path: str = Field(description="Path below OUTPUT/data, or of an exported file OUTPUT/export.")
    rows: Count = Field(description="Rows of the file.")
    bytes: Count = Field(description="Size of the file.")


class ExportedFiles(Record):
    """The kept rows once more, in the form that a training framework reads."""

    name: str = Field(description="The framework: a value of `--export`.")
    left_out_rows: Count = Field(description="Kept rows that the form cannot hold.")
    files: tuple[WrittenFile, ...]


class OutputFiles(Record):
    """The files that a run wrote, besides this one and the report."""

    # Manifests of older versions lack it.
    model_config = ConfigDict(
        json_schema_extra=lambda schema: schema["required"].remove("empty_shards")
    )

    ifd_column: str = Field(default="", description="Added column that holds the IFD score.")
    shards: tuple[WrittenFile, ...] = Field(default=(), description="The output, sorted by path.")
    empty_shards: tuple[str, ...] = Field(
        default=(),
        description="Paths below INPUT of the shards of which no row is kept, sorted: they have no "
        "file in OUTPUT/data. Empty where rows are in the order of their IFD.",
    )
    export: ExportedFiles | None = Field(default=None, description="Null without `--export`.")


class Manifest(Record):
    """What went into a run of sf-ray, what was asked of it, and what came out."""

    manifest_version: Literal[1] = MANIFEST_VERSION
    sf_ray_version: str = Field(default="", description="Version that wrote this file.")
    run_id: str = Field(default="", description="Names the run in its log lines and metrics.")
    request_id: str = Field(default="", description="Hash of all that decides what is written.")
    command: str = Field(default="", description="Command line that makes this output again.")
    finished: str = Field(default="", description="Time in UTC, e.g. `2026-01-31T23:59:59Z`.")
    wall_s: Mapping[str, float] = Field(default={}, description="Stage -> seconds.")
    input: Input = Input()
    scores: Scores = Scores()
    selection: SelectionResult = SelectionResult()
    status_counts: Mapping[str, Count] = Field(
        default={}, description="Status -> rows of the corpus, for every status."
    )
    output: OutputFiles = OutputFiles()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Manifest":
        """Reads a manifest that this or an older version of sf_ray has written.

        Args:
            data: The JSON.
            where: Where it lies, for the error.

        Raises:
            SfRayError: It is not a manifest that this version can read.
        """
        try:
            keys = parse_json(data)
            if keys["manifest_version"] != MANIFEST_VERSION:
                raise ValueError
            return cls.model_validate(keys)
        except (ValueError, KeyError, TypeError):  # a ValidationError is a ValueError
            raise SfRayError(
                f"{where} is not a manifest of this version of sf_ray; "
                "choose another output, or remove it together with data/ to write anew"
            ) from None

    def to_json(self) -> bytes:
        """Writes the JSON: every key that was given a value, in the order of the models."""
        keys = self.model_dump(exclude_unset=True)
        text = json.dumps(keys, indent=2, ensure_ascii=False, allow_nan=False)
        return printable_json(text).encode()
