"""The section `scores` of a manifest: the scores that rows were selected by, and their making.

Records alone, as in `manifest`, which describes the whole file.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Record(BaseModel):
    """A section of the manifest."""

    # The schema describes what this version writes: keys that have a default are written too.
    model_config = ConfigDict(
        frozen=True, allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


class Identity(Record):
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


class ScoredUnits(Record):
    """Units of the corpus. Each unit has one piece of scores."""

    total: Count = Field(default=0, description="All units.")
    scored: Count = Field(default=0, description="Units that this run scored.")
    reused: Count = Field(default=0, description="Units that had scores before.")


class ScoredTokens(Record):
    """Tokens of the units that this run scored, in both passes."""

    scored: Count = Field(default=0, description="All tokens.")
    saved: Count = Field(
        default=0,
        description="Tokens among them that repeat others of their unit, and were not computed "
        "again.",
    )


class LengthErrors(Record):
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


class ExactScores(Record):
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


class Scores(Record):
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
