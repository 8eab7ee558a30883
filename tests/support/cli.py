"""Command lines in the process of the tests."""

import pytest

from sf_ray.cli import main
from sf_ray.commands.setup import Specs
from sf_ray.runtime.json_log import end_log

# The commands whose functions take specs.
_SCORING = ("run", "score", "select", "plan", "probe")


class Cli:
    """Runs a command line: (exit code, stdout, stderr).

    Attributes:
        specs: Specs for every command that takes them, from now on; None for the real ones.
    """

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.specs: Specs | None = None

    def __call__(self, *arguments: object, specs: Specs | None = None) -> tuple[int, str, str]:
        takes_specs = bool(arguments) and arguments[0] in _SCORING
        self._capfd.readouterr()
        code = main(
            [str(argument) for argument in arguments],
            (specs or self.specs) if takes_specs else None,
        )
        end_log()
        out, err = self._capfd.readouterr()
        return code, out, err
