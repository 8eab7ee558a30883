"""The JSON Schema of the manifest, made from its models: `make docs` writes it.

A developer's tool. Knows the models in `sf_ray.output.manifest`; not what a key means.
"""

import json

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from sf_ray.output.manifest import Manifest


class _PlainSchema(GenerateJsonSchema):
    """Leaves out what a reader of manifests does not need."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Leaves out titles of keys: they repeat the key."""
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leaves out defaults: they are for manifests of older versions, which lack the key."""
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Leaves out that a mapping may have any keys, which not every pydantic says."""
        made = super().dict_schema(schema)
        return {key: value for key, value in made.items() if value is not True}


def manifest_schema() -> str:
    """The schema of the manifests that this version writes, as JSON."""
    schema = Manifest.model_json_schema(mode="serialization", schema_generator=_PlainSchema)
    return json.dumps({"$schema": _PlainSchema.schema_dialect, **schema}, indent=2) + "\n"


if __name__ == "__main__":
    print(manifest_schema(), end="")
