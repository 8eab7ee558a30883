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
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from sf_ray.errors import SfRayError

# Raised when a key is renamed, removed or gets another meaning; not when one is added.
MANIFEST_VERSION: Final = 1

Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    """A section of the manifest."""

    # The schema describes what this version writes: keys that have a default are written too.
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class SkippedInput(_Record):
    """A shard of the corpus that could not be used."""

    path: str = Field(description="Path of the shard below INPUT.")
    reason: str = Field(description="What is wrong with the shard.")


class Input(_Record):
    """The corpus that a run read."""

    uri: str = Field(default="", description="Path or URI, without user name and password.")
    fingerprint: str = Field(
        default="", description="Changes when a shard is added, changed, removed or skipped."
    )
    shards: Count = Field(default=0, description="Number of shards, without the skipped ones.")
    rows: Count = Field(default=0, description="Rows of those shards.")
    bytes: Count = Field(default=0, description="Size of those shards.")
    skipped_shards: tuple[SkippedInput, ...] = Field(
        default=(), description="Shards that `--on-bad-shard skip` left out."
    )


class Identity(_Record):
    """All that decides a score. Other keys may follow."""

    model_config = ConfigDict(extra="allow")

    scoring_version: int = Field(
        default=0, description="Raised when the same tokens would get other scores."
    )
    model: str = Field(default="", description="Hash of the model's files.")
    format: str = Field(default="", description="Format of the rows, e.g. `alpaca`.")
    columns: Mapping[str, Any] = Field(
        default={}, description="Field of the format -> column of the corpus."
    )
    template: str = Field(
        default="", description="`plain`, or hash of the template that makes one text of messages."
    )
    turns: str = Field(default="", description="Assistant turns of a chat that are scored.")
    alignment: str = Field(default="", description="Value of `--alignment`.")
    max_length: int = Field(default=0, description="Window in tokens.")
    dtype: str = Field(default="", description="Type that the model computes in.")
    unit_rows: int = Field(
        default=0, description="Rows that are scored and committed together, at most."
    )

    def items(self) -> list[tuple[str, Any]]:
        """The keys that were given, with their values, in the order in which they are written."""
        return list(self.model_dump(exclude_unset=True).items())


class ScoredUnits(_Record):
    """Units of the corpus. Each unit has one piece of scores."""

    total: Count = Field(default=0, description="All units.")
    scored: Count = Field(default=0, description="Units that this run scored.")
    reused: Count = Field(default=0, description="Units that had scores before.")


class ScoredTokens(_Record):
    """Tokens of the units that this run scored, in both passes."""

    scored: Count = Field(default=0, description="All tokens.")
    saved: Count = Field(
        default=0,
        description="Tokens among them that repeat others of their unit, and were not computed "
        "again.",
    )


class LengthErrors(_Record):
    """Errors of sampled rows whose answers are alike in length.

    The error of a row is |ln(IFD / IFD in float32)|: 0.01 is about one percent.
    """

    most_answer_tokens: Count | None = Field(
        description="The longest answers among these rows, in scored tokens; null for no bound. "
        "The shortest follow on the longest of the entry before."
    )
    rows: Count = Field(description="Rows of the sample.")
    median_error: float = Field(description="Of these rows.")
    largest_error: float = Field(description="Of these rows.")
    band: float = Field(
        description="The error that no row is expected to exceed: `safety_factor` times "
        "`largest_error`."
    )


class ExactScores(_Record):
    """The scores that `--exact` made in place of others.

    Kept are the rows that this type alone would keep, if no row has a larger error than its band.
    """

    scoring_id: str = Field(
        description="Name below SCORES of the set that the rows were selected by: that of "
        "`scores.scoring_id`, with the scores of `rescored_rows` in this type."
    )
    dtype: str = Field(description="Type of the scores that took the place of others.")
    sampled_rows: Count = Field(description="Rows that were scored in both types.")
    rescored_rows: Count = Field(description="All rows with a score in both, the sample included.")
    rounds: Count = Field(
        description="How often rows near the cut-off or a bound were scored again."
    )
    safety_factor: float = Field(description="Band / largest error of the sample.")
    errors: tuple[LengthErrors, ...] = Field(description="From short answers to long ones.")

    @property
    def largest_error(self) -> float:
        """Of the whole sample."""
        return max((errors.largest_error for errors in self.errors), default=0.0)


class Scores(_Record):
    """The scores that the rows were selected by.

    The key `exact` is missing where nothing was scored again: without `--exact`, or with scores in
    float32.
    """

    # Manifests of this version were written before there was the key.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("exact"))

    uri: str = Field(default="", description="SCORES, which may hold several score sets.")
    scoring_id: str = Field(
        default="", description="Hash of the identity: the name of the score set below SCORES."
    )
    model_name: str = Field(
        default="", description="Name by which the model was given when the rows were scored."
    )
    identity: Identity = Identity()
    units: ScoredUnits = ScoredUnits()
    tokens: ScoredTokens = ScoredTokens()
    exact: ExactScores | SkipJsonSchema[None] = Field(
        default=None, description="What `--exact` scored again."
    )

    @property
    def pieces(self) -> str:
        """Path or URI of the pieces that the rows were selected by."""
        return f"{self.uri}/{self.exact.scoring_id if self.exact else self.scoring_id}"


class LastKept(_Record):
    """The last row that a cut-off keeps.

    Rows with a higher IFD are kept, and of rows with the same IFD those that come earlier in the
    corpus.
    """

    ifd: float = Field(description="IFD of the row.")
    shard: str = Field(description="Path of the row's shard below INPUT.")
    row: Count = Field(description="Number of the row in its shard, from 0.")


class GroupResult(_Record):
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


class Diversity(_Record):
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


class SelectionResult(_Record):
    """What was asked of the selection, and the rows that it keeps."""

    keep_fraction: float | None = Field(
        default=None, description="Fraction of all input rows to keep."
    )
    keep_fraction_of: str = Field(
        default="all input rows", description="The rows that `keep_fraction` is a fraction of."
    )
    keep_count: Count | None = Field(default=None, description="Number of rows to keep.")
    quota: Mapping[str, Mapping[str, int | float]] | None = Field(
        default=None,
        description="One column -> its values -> a count of rows (integer) or a fraction of the "
        "value's rows; `*` stands for every other value.",
    )
    min_ifd: float = Field(default=0.0, description="The least IFD of an eligible row.")
    max_ifd: float = Field(default=1.0, description="The IFD of an eligible row is below this.")
    min_prompt_tokens: Count | None = Field(default=None, description="Null for no bound.")
    max_prompt_tokens: Count | None = Field(default=None, description="Null for no bound.")
    min_answer_tokens: Count | None = Field(default=None, description="Null for no bound.")
    max_answer_tokens: Count | None = Field(default=None, description="Null for no bound.")
    dropped_duplicates: Count | None = Field(
        default=None,
        description="Copies of better rows, which are not eligible; null without "
        "`--drop-duplicates`.",
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
    def rows_within_cutoff(self) -> int:
        """Rows that the cut-offs keep, before `--diversify-to`."""
        return self.diversity.of_rows if self.diversity else self.kept_rows


class WrittenFile(_Record):
    """A file that a run wrote."""

    path: str = Field(description="Path below OUTPUT/data, or of an exported file OUTPUT/export.")
    rows: Count = Field(description="Rows of the file.")
    bytes: Count = Field(description="Size of the file.")


class ExportedFiles(_Record):
    """The kept rows once more, in the form that a training framework reads."""

    name: str = Field(description="The framework: a value of `--export`.")
    left_out_rows: Count = Field(description="Kept rows that the form cannot hold.")
    files: tuple[WrittenFile, ...]


class OutputFiles(_Record):
    """The files that a run wrote, besides this one and the report."""

    ifd_column: str = Field(default="", description="Added column that holds the IFD score.")
    shards: tuple[WrittenFile, ...] = Field(default=(), description="The output, sorted by path.")
    export: ExportedFiles | None = Field(default=None, description="Null without `--export`.")


class Manifest(_Record):
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
            keys = json.loads(data)
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
        return json.dumps(keys, indent=2, ensure_ascii=False, allow_nan=False).encode()
