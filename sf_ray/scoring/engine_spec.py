"""What decides how an actor holds the model; sent to the workers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sf_ray.config.options import ScoringSpecOptions
from sf_ray.encoding.specs import ModelSpec

if TYPE_CHECKING:
    from sf_ray.scoring.unit_scorer import UnitScorer


@dataclass(frozen=True)
class EngineSpec:
    """All that decides how an actor holds the model.

    Attributes:
        model: The model.
        device: "cpu" or "cuda".
        dtype: float32, or what autocast computes products in.
        token_budget: Tokens in one batch; None: the engine chooses.
        compile: Compile the model's layers on CUDA.
        threads: On CPU; None until the pool of actors has its size.
    """

    model: ModelSpec
    device: str
    dtype: str
    token_budget: int | None = None
    compile: bool = True
    threads: int | None = None

    @classmethod
    def of(
        cls, options: ScoringSpecOptions, model: ModelSpec, device: str, dtype: str
    ) -> "EngineSpec":
        """What the options ask for."""
        return cls(model, device, dtype, options.token_budget, not options.no_compile)

    def start(self) -> "UnitScorer":
        """The model, loaded."""
        # Only a scoring actor pays for importing torch.
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
            )
        )
