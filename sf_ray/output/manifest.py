"""The manifest of a finished run, as a typed and versioned record: OUTPUT/manifest.json.

A public format: docs/manifest.schema.json is its JSON Schema, written from these models. This
module alone reads and writes the JSON. It does not know how a run fills a manifest
(`run_manifest`) and where the file lies (`layout`). No Ray, no files.

Keys have been added since version 1 began, none was renamed or removed. So every key of a section
has a default: a manifest of an older sf_ray is read, and what it lacks takes the default. Keys that
are unknown here, of a newer sf_ray, are ignored.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

from sf_ray.errors import SfRayError

# Raised when a key is renamed, removed or gets another meaning; not when one is added.
MANIFEST_VERSION: Final = 1

_Rows = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    """A part of the manifest."""

    # The schema describes what this version writes: the keys that have a default are there too.
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class SkippedInput(_Record):
    """A shard of the corpus that could not be used."""

    path: str = Field(description="Below the corpus.")
    reason: str = Field(description="What is wrong with it.")


class Input(_Record):
    """The corpus that a run read."""

    uri: str = Field(default="", description="Path or URI, without user name and password.")
    fingerprint: str = Field(
        default="", description="Hash of the shards' names, sizes and versions."
    )
    shards: int = Field(default=0, description="Shards that were used.")
    rows: _Rows = Field(default=0, description="Rows of those shards.")
    bytes: int = Field(default=0, description="Bytes of those shards.")
    skipped_shards: tuple[SkippedInput, ...] = Field(
        default=(), description="Shards that were left out (`--on-bad-shard skip`)."
    )


class Identity(_Record):
    """All that decides a score; `scoring_id` is its hash."""

    # An identity may name more (`sample`, of scores of some rows only).
    model_config = ConfigDict(extra="allow")

    scoring_version: int = Field(
        default=0, description="Raised when the same tokens get other scores."
    )
    model: str = Field(default="", description="Fingerprint of the model's files.")
    format: str = Field(default="", description="How a row holds what was said, e.g. `alpaca`.")
    columns: Mapping[str, Any] = Field(default={}, description="Field of the format -> column.")
    template: str = Field(default="", description="How messages become text.")
    turns: str = Field(default="", description="Which answers of a chat count.")
    alignment: str = Field(default="", description="Which tokens of an answer are averaged.")
    max_length: int = Field(default=0, description="Window in tokens.")
    dtype: str = Field(default="", description="Type of the model's numbers.")
    unit_rows: int = Field(default=0, description="Rows that are scored together, at most.")

    def items(self) -> list[tuple[str, Any]]:
        """The names and values that were given, in the order in which they are written."""
        return list(self.model_dump(exclude_unset=True).items())


class ScoredUnits(_Record):
    """Units of the corpus, of which each has one piece of scores."""

    total: int = 0
    scored: int = Field(default=0, description="Scored by this run.")
    reused: int = Field(default=0, description="Had scores before.")


class ScoredTokens(_Record):
    """Tokens that this run scored, with and without the prompt."""

    scored: int = 0
    saved: int = Field(
        default=0, description="Repeat the beginning of another sequence: not computed again."
    )


class Scores(_Record):
    """The scores that a run made or found."""

    uri: str = Field(default="", description="SCORES, which may hold several score sets.")
    scoring_id: str = Field(default="", description="Names the score set below `uri`.")
    model_name: str = Field(
        default="", description="The model, as it was named when it was scored with."
    )
    identity: Identity = Identity()
    units: ScoredUnits = ScoredUnits()
    tokens: ScoredTokens = ScoredTokens()


class LastKept(_Record):
    """The last row that a cut-off keeps. Rows with a higher IFD are kept, others are not; of rows
    with the same IFD, those that come earlier in the corpus are kept.
    """

    ifd: float
    shard: str = Field(description="Path below the corpus.")
    row: int = Field(description="Number of the row in its shard, from 0.")


class GroupResult(_Record):
    """What a quota asks of the rows with one value of its column, and what they get."""

    asked: int | float | None = Field(
        description="A count of rows (integer) or a fraction of the group's rows; null where the "
        "quota does not name the value."
    )
    rows: _Rows = Field(description="Rows with the value.")
    eligible: _Rows = Field(description="Rows of those that may be kept.")
    wanted: _Rows = Field(description="Rows that the quota asks for.")
    kept: _Rows = Field(description="Rows that the cut-off keeps; `--diversify-to` may keep fewer.")
    cutoff: LastKept | None = Field(description="Null where no row is kept.")


class Diversity(_Record):
    """What `--diversify-to` chose of the rows that the cut-off keeps.

    The keys from `wanted_rows` on are missing where the cut-off keeps no more rows than were asked
    for: all of them are kept then.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    diversify_to: int | float = Field(
        description="A count of rows (integer) or a fraction of all input rows."
    )
    encoder: str = Field(description="Path, name or URI of the encoder, without credentials.")
    encoder_fingerprint: str = Field(description="Hash of the encoder's files.")
    of_rows: _Rows = Field(description="Rows that the cut-off keeps.")
    wanted_rows: int | None = Field(default=None, description="Rows asked for.")
    objective: float | None = Field(
        default=None,
        description="Facility location: sum over `of_rows` of the cosine to the most similar "
        "chosen row.",
    )
    mean_similarity: float | None = Field(default=None, description="`objective` / `of_rows`.")
    is_exact: bool | None = Field(
        default=None, description="By greedy on all rows at once; else by parts, with lower bounds."
    )
    ratio_to_exact: float | None = Field(
        default=None, description="By parts / by exact greedy, of the objective, on a sample."
    )


class SelectionResult(_Record):
    """What was asked of the selection, and the rows that are kept."""

    keep_fraction: float | None = Field(default=None, description="Of all input rows.")
    keep_fraction_of: str = Field(default="all input rows", description="What the fraction is of.")
    keep_count: int | None = Field(default=None, description="Rows.")
    quota: Mapping[str, Mapping[str, int | float]] | None = Field(
        default=None,
        description="Column -> value -> count (integer) or fraction; `*` is every other value.",
    )
    min_ifd: float = Field(default=0.0, description="Rows with a lower IFD are not eligible.")
    max_ifd: float = Field(
        default=1.0, description="Rows with this IFD or a higher one are not eligible."
    )
    min_prompt_tokens: int | None = None
    max_prompt_tokens: int | None = None
    min_answer_tokens: int | None = None
    max_answer_tokens: int | None = None
    dropped_duplicates: int | None = Field(
        default=None,
        description="Copies of better rows, which were not eligible; null without "
        "`--drop-duplicates`.",
    )
    order: str = Field(default="input", description="Of the output's rows: `input` or `ifd`.")
    wanted_rows: _Rows = Field(default=0, description="Rows that were asked for.")
    eligible_rows: _Rows = Field(default=0, description="Rows that may be kept.")
    cutoff: LastKept | None = Field(
        default=None, description="Null where no row is kept, and with a quota: see `groups`."
    )
    groups: Mapping[str, GroupResult] | None = Field(
        default=None, description="Value of the quota's column -> its rows; null without a quota."
    )
    diversity: Diversity | None = Field(default=None, description="Null without `--diversify-to`.")
    kept_rows: _Rows = Field(default=0, description="Rows of the output.")

    @property
    def rows_within_cutoff(self) -> int:
        """Rows that the cut-offs keep; `--diversify-to` may keep fewer of them."""
        return self.diversity.of_rows if self.diversity else self.kept_rows


class WrittenFile(_Record):
    """A file that a run wrote."""

    path: str = Field(description="Below OUTPUT/data, or below OUTPUT/export.")
    rows: _Rows
    bytes: int


class ExportedFiles(_Record):
    """The kept rows once more, in the form that a training framework reads."""

    name: str = Field(description="The framework: a value of `--export`.")
    left_out_rows: _Rows = Field(description="Kept rows that the form cannot hold.")
    files: tuple[WrittenFile, ...] = Field(description="Below OUTPUT/export.")


class OutputFiles(_Record):
    """The files that a run wrote, without this one and the report."""

    ifd_column: str = Field(
        default="", description="Column of the output that holds the IFD score."
    )
    shards: tuple[WrittenFile, ...] = Field(default=(), description="Below OUTPUT/data, by path.")
    export: ExportedFiles | None = Field(default=None, description="Null without `--export`.")


class Manifest(_Record):
    """What went into a run of sf_ray, what was asked of it, and what came out."""

    manifest_version: Literal[1] = MANIFEST_VERSION
    sf_ray_version: str = Field(default="", description="The version that wrote this.")
    run_id: str = Field(default="", description="The same in the run's log lines and metrics.")
    request_id: str = Field(default="", description="Hash of all that decides what is written.")
    command: str = Field(default="", description="A command line that makes this output again.")
    finished: str = Field(default="", description="UTC, as in 2026-01-31T23:59:59Z.")
    wall_s: Mapping[str, float] = Field(default={}, description="Stage -> seconds.")
    input: Input = Input()
    scores: Scores = Scores()
    selection: SelectionResult = SelectionResult()
    status_counts: Mapping[str, int] = Field(
        default={}, description="Status -> rows of the corpus."
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


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of the manifests that this version writes."""

    class WithoutTitles(GenerateJsonSchema):
        """Leaves out titles, which would only repeat the keys."""

        def field_title_should_be_set(self, schema: object) -> bool:
            return False

    schema = Manifest.model_json_schema(mode="serialization", schema_generator=WithoutTitles)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
