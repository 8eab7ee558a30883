"""Whether libraries are there that only some commands need, said before any work is done."""

from importlib.util import find_spec

from sf_ray.errors import SfRayError


def require(extra: str, *libraries: str) -> None:
    """Refuses to begin without libraries.

    Args:
        extra: The extra of this package that brings them.
        libraries: Names by which they are imported.

    Raises:
        SfRayError: Names those that are missing, and how to get them.
    """
    missing = [library for library in libraries if find_spec(library) is None]
    if missing:
        raise SfRayError(
            f"this needs {' and '.join(missing)}, which is not installed here: "
            f"pip install 'sf_ray[{extra}]'"
        )
