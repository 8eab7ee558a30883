"""How an actor holds the model, and what it returns of a unit.

The spec travels to workers; the model is loaded only there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sf_ray.config.options import ScoringSpecOptions
from sf_ray.encoding.specs import ModelSpec

if TYPE_CHECKING:
    from sf_ray.scoring.unit_scorer import UnitScorer


@dataclass(frozen=True)
class EngineSpec:
    """Everything that decides how an actor holds the model.

    Attributes:
        model: The model.
        device: "cpu" or "cuda".
        dtype: "float32", or the type in which autocast computes products.
        token_budget: Tokens in one batch, padding included; None lets the engine choose.
        compile: Whether to compile the model's layers on CUDA.
        threads: Threads on CPU; None until the size of the actor pool is known.
        token_losses: Whether the differences of single tokens are kept.
    """

    model: ModelSpec
    device: str
    dtype: str
    token_budget: int | None = None
    compile: bool = True
    threads: int | None = None
    token_losses: bool = False

    @classmethod
    def of(
        cls, options: ScoringSpecOptions, model: ModelSpec, device: str, dtype: str
    ) -> "EngineSpec":
        """The spec that the options ask for."""
        return cls(model, device, dtype, options.token_budget, not options.no_compile)

    def start(self) -> "UnitScorer":
        """Loads the model.

        Raises:
            SfRayError: The model is not there, or cannot be loaded.
        """
        # Imported here, so that only processes that hold a model pay for importing torch.
        from sf_ray.engine.engine import Engine
        from sf_ray.engine.memory import keep_freed_memory
        from sf_ray.scoring.unit_scorer import UnitScorer

        keep_freed_memory()
        return UnitScorer(
            Engine(
                self.model.resolve().path,
                device=self.device,
                dtype=self.dtype,
                token_budget=self.token_budget,
                threads=self.threads,
                compile=self.compile,
                trust_remote_code=self.model.trust_remote_code,
            ),
            self.token_losses,
        )
