"""sf_ray scores instruction data by IFD with a small model and keeps the best of it, on Ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sf_ray.errors import SfRayError
    from sf_ray.scorer import Score, Scorer

__version__ = "0.1.0"
__all__ = ["Score", "Scorer", "SfRayError", "__version__"]


def __getattr__(name: str) -> Any:
    # `import sf_ray` costs nothing: what needs torch is imported when it is asked for.
    if name in ("Score", "Scorer"):
        from sf_ray import scorer as scoring

        return getattr(scoring, name)
    if name == "SfRayError":
        from sf_ray.errors import SfRayError

        return SfRayError
    raise AttributeError(f"module 'sf_ray' has no attribute {name!r}")
