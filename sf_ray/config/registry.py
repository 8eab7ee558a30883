"""The commands: the options of each, and how flags and YAML become validated options.

Reads the YAML file of `--config` and no other file. Imports no command: each is named by a string,
so that `--help` stays fast.
"""

import difflib
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sf_ray.config.options import (
    CompareOptions,
    DemoOptions,
    Options,
    PlanOptions,
    ProbeOptions,
    ReportOptions,
    ScoreOptions,
    ShowOptions,
)
from sf_ray.config.quotas import Quota
from sf_ray.config.selection_options import HOW_MUCH, RunOptions, SelectOptions
from sf_ray.config.study_options import StudyPlanOptions, StudyReportOptions, StudyTrainOptions
from sf_ray.config.yaml_text import yaml_value
from sf_ray.errors import UsageError


@dataclass(frozen=True)
class Command:
    """A command of `sf-ray`.

    Attributes:
        name: Name on the command line; two words for a command of a group.
        entry: Function that takes the options, as "module:function" of this package.
        options: Class of the options.
        positional: Names of the options that are given by place.
        help: One sentence for --help: what the command does.
    """

    name: str
    entry: str
    options: type[Options]
    positional: tuple[str, ...]
    help: str


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "run",
            "commands.pipeline:run",
            RunOptions,
            ("input", "output"),
            "Score, select and write in one go.",
        ),
        Command(
            "score",
            "commands.pipeline:score",
            ScoreOptions,
            ("input", "scores"),
            "Score a corpus; keep the scores.",
        ),
        Command(
            "select",
            "commands.pipeline:select",
            SelectOptions,
            ("input", "scores", "output"),
            "Select from existing scores and write; no model, no GPU.",
        ),
        Command(
            "compare",
            "commands.compare.command:compare",
            CompareOptions,
            ("scores_a", "scores_b"),
            "Compare the scores of two models: rank correlation, and what both would keep.",
        ),
        Command(
            "probe",
            "commands.compare.probe:probe",
            ProbeOptions,
            ("input",),
            "Score a sample with several models; find the fastest that selects like the strongest.",
        ),
        Command(
            "plan",
            "commands.plan.command:plan",
            PlanOptions,
            ("input",),
            "Estimate beforehand what scoring a corpus takes: tokens, time, hours, price.",
        ),
        Command(
            "report",
            "commands.report:report",
            ReportOptions,
            ("output",),
            "Write the report of a finished run again, without reading the corpus or scores.",
        ),
        Command(
            "show",
            "commands.show:show",
            ShowOptions,
            ("place",),
            "Print what a run kept, or what scores are there, with rows to read.",
        ),
        Command(
            "study plan",
            "commands.study.plan:plan",
            StudyPlanOptions,
            ("input", "scores", "study"),
            "Write the arms of an experiment: what to train on, and held-out rows.",
        ),
        Command(
            "study train",
            "commands.study.train:train",
            StudyTrainOptions,
            ("study",),
            "Train the student on each arm of a planned study, on this cluster.",
        ),
        Command(
            "study report",
            "commands.study.report:report",
            StudyReportOptions,
            ("study",),
            "Compare trained models on the held-out rows: better, worse or cannot tell.",
        ),
        Command(
            "demo",
            "commands.demo:demo",
            DemoOptions,
            (),
            "Run the whole job on text from Python's standard library.",
        ),
    )
}


# What the commands of a group are for.
GROUPS = {"study": "Find out whether the selection trains a better model: plan, train, report."}


def command_line(options: Options, public: Callable[[str], str]) -> str:
    """The command line that gives these options, without storage options, which may be secrets.

    Args:
        options: Options of any command.
        public: Removes user names and passwords from a URI.
    """
    command = next(command for command in COMMANDS.values() if command.options is type(options))
    words = ["sf-ray", command.name]
    words += [public(getattr(options, name)) for name in command.positional]
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        is_left_out = name in command.positional or may_be_secret(name)
        if is_left_out or value == field.default:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(public(_as_flag(value)))
    return shlex.join(words)


def may_be_secret(name: str) -> bool:
    """Whether the value of an option is shown nowhere, as it may hold credentials."""
    return name.endswith("storage_options")


def _as_flag(value: object) -> str:
    """Writes a value as text that the same option accepts; the inverse of the value's type."""
    if isinstance(value, Quota):
        return f"{value.column}:{json.dumps(dict(value.shares), ensure_ascii=False)}"
    if isinstance(value, list):
        return ",".join("=".join(one) if isinstance(one, tuple) else str(one) for one in value)
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    if isinstance(value, dict) and all(isinstance(draws, int) for draws in value.values()):
        return ",".join(f"{arm}:{draws}" if draws else arm for arm, draws in value.items())
    if isinstance(value, dict):
        return ",".join(f"{field}={column}" for field, column in value.items())
    return str(value)


def load(command: Command, flags: Mapping[str, object], config_path: str | None) -> Options:
    """Validates flags and a YAML file as the options of `command`; flags win over the file.

    Args:
        command: The command that runs.
        flags: Option name (with underscores) -> value; None means that the flag was not given.
        config_path: Local YAML file with the same names. It may have keys of other commands, so
            that `run`, `score` and `select` can share one file.

    Raises:
        UsageError: A key is unknown, an option is missing or a value is not allowed. The text has
            one line for each problem.
    """
    values = _from_yaml(config_path) if config_path else {}
    values = {name: value for name, value in values.items() if name in command.options.model_fields}
    given = {name: value for name, value in flags.items() if value is not None}
    # A flag that says how much to keep replaces every such key of the file: a count on the command
    # line and a fraction in the file would otherwise exclude each other.
    if any(name in given for name in HOW_MUCH):
        values = {name: value for name, value in values.items() if name not in HOW_MUCH}
    values.update(given)
    try:
        return command.options.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(command, error)) from None


def _from_yaml(path: str) -> dict[str, Any]:
    try:
        document = yaml_value(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UsageError(f"--config {path}: not valid YAML: {_slip(error)}") from None
    except ValueError as error:  # too much, too deep, no UTF-8, a number of thousands of digits
        raise UsageError(f"--config {path}: cannot be used: {error}") from None
    if not isinstance(document, dict):
        raise UsageError(f"--config {path}: expected option names with values, e.g. 'model: demo'")
    known = {name for command in COMMANDS.values() for name in command.options.model_fields}
    values = {str(key).replace("-", "_"): value for key, value in document.items()}
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(key, sorted(known), n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "see `sf-ray run --help`"
            raise UsageError(f"--config {path}: unknown key {key!r}; {hint}")
    return values


def _slip(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML file, and where, without a word of it: it may hold secrets.

    PyYAML shows the line itself, and names what it read in quotation marks.
    """
    if not isinstance(error, yaml.MarkedYAMLError):  # characters that YAML has not
        return "it holds a character that YAML does not allow"
    problem = re.sub(r"'[^']{2,}'|\"[^\"]{2,}\"", "what stands there", error.problem or "a slip")
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _explain(command: Command, error: ValidationError) -> str:
    """Describes each problem in one line, with the names that the command line uses.

    Values of storage options are not quoted, because they may be secrets.
    """
    lines = []
    for problem in error.errors(include_url=False):
        if not problem["loc"]:  # raised by a validator of the whole model, which names the flags
            lines.append(problem["msg"].removeprefix("Value error, "))
            continue
        name = str(problem["loc"][0])
        flag = name.upper() if name in command.positional else "--" + name.replace("_", "-")
        if problem["type"] == "missing":
            lines.append(f"{flag} is missing: give it, or `{name}:` in the --config file")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            shown = "" if may_be_secret(name) else f" (got {problem['input']!r})"
            lines.append(f"{flag}: {message}{shown}")
    return "\n".join(lines)
