"""How to start a Python process that runs a module of this package, and nothing that lies around.

Python looks for modules in the working directory first, and so does an empty entry of PYTHONPATH. A
corpus or a model may lie there, and bring a `json.py`. Starts nothing itself.
"""

import os
import sys
from pathlib import Path


def child_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module as a program.

    Args:
        module: Its full name.
        arguments: The arguments of the program.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """The environment of such a process: this one's, with the folder of this package in it."""
    root = str(Path(__file__).parents[2])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, given)])}
