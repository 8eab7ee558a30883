"""Command lines in the process of the tests."""

from contextlib import ExitStack
from unittest.mock import patch

import pytest

from sf_ray.cli import main
from sf_ray.commands.setup import Specs
from sf_ray.runtime.json_log import end_log

# The commands whose functions take specs.
_SCORING = ("run", "score", "select", "plan", "probe", "study")
# The plots of report.html, which take half of the CPU time of a small run.
_PLOTS = dict.fromkeys(("ifd", "narrow", "ppl", "answer", "prompt"), "<svg></svg>")


class Cli:
    """Runs a command line: (exit code, stdout, stderr).

    Attributes:
        specs: Specs for every command that takes them, from now on; None for the real ones.
        draws: Whether reports have their real plots, for tests that look at reports.
    """

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.specs: Specs | None = None
        self.draws = False

    def __call__(self, *arguments: object, specs: Specs | None = None) -> tuple[int, str, str]:
        takes_specs = bool(arguments) and arguments[0] in _SCORING
        self._capfd.readouterr()
        with ExitStack() as stack:
            if not self.draws:
                drawn = "sf_ray.output.report.page.plots_of"
                stack.enter_context(patch(drawn, lambda *_: _PLOTS))
            code = main(
                [str(argument) for argument in arguments],
                (specs or self.specs) if takes_specs else None,
            )
        end_log()
        out, err = self._capfd.readouterr()
        return code, out, err
