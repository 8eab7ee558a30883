"""What decides how a unit becomes token ids, and those become scores; sent to the workers."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from sf_ray.encoding import Encoder
from sf_ray.errors import SfRayError
from sf_ray.examples import Format
from sf_ray.models import Model, load_tokenizer, resolve_model
from sf_ray.reading import rows_of
from sf_ray.tables import encoded_table

if TYPE_CHECKING:
    from sf_ray.scoring import UnitScorer


@dataclass(frozen=True)
class ModelSpec:
    """A model that every node resolves for itself; the fingerprint says that it is the same."""

    name: str
    fingerprint: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    trust_remote_code: bool = False

    def resolve(self) -> Model:
        """The model on this node.

        Raises:
            SfRayError: It is not there, or has other weights than the driver's.
        """
        model = resolve_model(self.name, self.storage_options)
        if model.fingerprint != self.fingerprint:
            raise SfRayError(
                f"model {self.name} on node {ray.util.get_node_ip_address()} has other files "
                f"({model.fingerprint}) than on the driver ({self.fingerprint}); put the same "
                "model on every node, or name a URI that all of them fetch"
            )
        return model


@dataclass(frozen=True)
class EncodeRules:
    """All that decides how a unit's rows become token ids."""

    format: Format
    model: ModelSpec
    max_length: int
    alignment: str

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return list(dict.fromkeys(self.format.columns.values()))

    def check(self) -> None:
        """Makes the encoder here, before any actor starts.

        Raises:
            SfRayError: What it cannot work with.
        """
        _ = self._encoder

    def encode(self, rows: pa.Table) -> pa.Table:
        """Rows of the corpus -> as many encoded rows."""
        examples = [
            self.format.render(row) if isinstance(row, dict) else None for row in rows_of(rows)
        ]
        return encoded_table(self._encoder.encode(examples))

    @functools.cached_property
    def _encoder(self) -> Encoder:
        """Made once in each worker process."""
        tokenizer = load_tokenizer(self.model.resolve(), self.model.trust_remote_code)
        return Encoder(tokenizer, self.max_length, self.alignment)


@dataclass(frozen=True)
class EngineRules:
    """All that decides how an actor holds the model."""

    model: ModelSpec
    device: str
    dtype: str
    token_budget: int | None
    threads: int | None

    def start(self) -> "UnitScorer":
        """The model, loaded."""
        # Only a scoring actor pays for importing torch.
        from sf_ray.engine import Engine
        from sf_ray.memory import keep_freed_memory
        from sf_ray.scoring import UnitScorer

        keep_freed_memory()
        return UnitScorer(
            Engine(
                self.model.resolve().path,
                device=self.device,
                dtype=self.dtype,
                token_budget=self.token_budget,
                threads=self.threads,
                trust_remote_code=self.model.trust_remote_code,
            )
        )
