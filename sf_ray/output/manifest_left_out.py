"""The part of a manifest that says which rows were left out for what they say: see `manifest`."""

from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from sf_ray.output.manifest_scores import Count, Record


class ExcludedInput(Record):
    """Files whose rows may not be kept."""

    uri: str = Field(description="Where they lie.")
    fingerprint: str = Field(description="Hash of their paths, sizes and versions.")
    rows: Count = Field(description="Rows of all files.")


class SharedWords(Record):
    """A row of the corpus, and what it shares with a row of an evaluation set."""

    shard: str = Field(description="Path of the row's shard below INPUT.")
    row: Count = Field(description="Number of the row in its shard, from 0.")
    uri: str = Field(description="Where the evaluation set lies.")
    in_shard: str = Field(description="Path, below `uri`, of the shard with the other row.")
    in_row: Count = Field(description="Number of the other row in its shard, from 0.")
    words: str = Field(
        description="The first words that both share, normalised: casefolded, without punctuation."
    )


class NearDuplicates(Record):
    """The near copies that were looked for.

    `encoder` and its fingerprint are missing where texts are compared, and the keys of a sample
    where every row was compared with every other one.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    threshold: float = Field(description="How similar two near rows are, at least.")
    by: str = Field(description="What was compared: `embedding` (cosine) or `text` (Jaccard).")
    encoder: str | SkipJsonSchema[None] = Field(
        default=None, description="Name, path or URI of the encoder, without credentials."
    )
    encoder_fingerprint: str | SkipJsonSchema[None] = Field(
        default=None, description="Hash of the encoder's files."
    )
    compared_rows: Count = Field(description="Rows that were compared with each other.")
    dropped_rows: Count = Field(
        description="Rows that are near a better one that is kept: they are not eligible."
    )
    sampled_rows: Count | SkipJsonSchema[None] = Field(
        default=None, description="Rows of a sample that was compared with all rows."
    )
    sampled_near_rows: Count | SkipJsonSchema[None] = Field(
        default=None, description="Rows among them near which there is a better one."
    )
    sampled_found_rows: Count | SkipJsonSchema[None] = Field(
        default=None, description="Rows among these for which one was found."
    )
