"""Whether libraries are there that only some commands need, said before any work is done."""

import shlex
import sys
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


def install_command(*arguments: str) -> str:
    """The command line that installs packages where this Python finds them.

    `pip` alone may be that of another environment: this one need not be activated, and those of
    pipx and uv are nowhere on the path.

    Args:
        arguments: What follows `pip install`.
    """
    here = [sys.executable, "-m", "pip", "install"]
    if find_spec("pip") is None:  # uv makes environments without
        here = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*here, *arguments])
