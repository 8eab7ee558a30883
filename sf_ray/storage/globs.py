"""Which part of a path is a pattern: a name that exists is never one, whatever its characters.

Only the input of a job may be a glob. Asks storage whether a name exists, and lists nothing.
"""

import re
from collections.abc import Callable

from fsspec.core import has_magic
from fsspec.utils import glob_translate

from sf_ray.errors import SfRayError
from sf_ray.storage.location import Location

_WILDCARD = re.compile(r"[*?[]")


def split_glob(location: Location) -> tuple[str, str | None]:
    """Splits a path into the folder to search and the pattern of names below it.

    `/data/[v1]/*.jsonl` is the pattern `*.jsonl` below `/data/[v1]`, where that folder exists.

    Args:
        location: A path that may have wildcards.

    Returns:
        The path in the spelling of the file system, and None instead of a pattern where the path
        has no wildcard or exists as it stands.

    Raises:
        SfRayError: Storage failed.
    """
    path = location.path
    if not has_magic(path) or _exists(location, path):
        return path, None
    parts = path.split("/")
    known = 0  # how many parts are names
    for count in range(1, len(parts)):
        # Only a name with a wildcard needs a request.
        if has_magic(parts[count - 1]) and not _exists(location, "/".join(parts[:count])):
            break
        known = count
    return "/".join(parts[:known]) or path[: path.startswith("/")], "/".join(parts[known:])


def has_wildcard(location: Location) -> bool:
    """Whether a location is a glob."""
    return split_glob(location)[1] is not None


def whole_pattern(root: str, pattern: str) -> str:
    """The two parts of `split_glob` as one pattern, in which the root stands for itself."""
    escaped = _WILDCARD.sub(r"[\g<0>]", root)
    return f"{escaped}/{pattern}" if escaped.strip("/") else f"{escaped}{pattern}"


def depth_of(pattern: str | None) -> int | None:
    """How many levels of names a pattern speaks of; None for any number."""
    if pattern is None or "**" in pattern:
        return None
    return pattern.count("/") + 1


def matcher(root: str, pattern: str) -> Callable[[str], bool]:
    """A function that says whether a path matches, as fsspec's `glob` decides it.

    Raises:
        ValueError: The pattern is not valid, e.g. `a**`.
    """
    compiled = re.compile(glob_translate(whole_pattern(root, pattern)))
    return lambda path: compiled.match(path) is not None


def _exists(location: Location, path: str) -> bool:
    try:
        location.call("info", path)
    except SfRayError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return False
        raise
    return True
