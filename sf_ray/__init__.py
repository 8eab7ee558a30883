"""sf_ray scores instruction data by IFD with a small model and keeps the best of it, on Ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sf_ray.errors import SfRayError
    from sf_ray.reading import read_output, read_scores
    from sf_ray.scorer import Score, Scorer

__version__ = "0.1.0"
__all__ = ["Score", "Scorer", "SfRayError", "__version__", "read_output", "read_scores"]


def __getattr__(name: str) -> Any:
    # Names are imported at their first use: `scorer` imports torch, which takes seconds, and
    # `import sf_ray` shall stay fast.
    if name in ("Score", "Scorer"):
        from sf_ray import scorer

        return getattr(scorer, name)
    if name in ("read_output", "read_scores"):
        from sf_ray import reading

        return getattr(reading, name)
    if name == "SfRayError":
        from sf_ray.errors import SfRayError

        return SfRayError
    raise AttributeError(f"module 'sf_ray' has no attribute {name!r}")
