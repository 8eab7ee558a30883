import subprocess
import sys

import pytest

import sf_ray
from sf_ray.cli import metavar
from sf_ray.config.options import CompareOptions, Options, ShowOptions
from sf_ray.config.registry import COMMANDS, Command
from sf_ray.config.selection_options import RunOptions
from tests.support.cli import Cli


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_help_shows_every_option_of_the_one_definition(command: Command, sf_ray_cli: Cli) -> None:
    code, out, _ = sf_ray_cli(*command.name.split(), "--help")
    assert code == 0
    for name in command.options.model_fields:
        assert f"--{name.replace('_', '-')}" in out or name.upper() in out


@pytest.mark.parametrize(
    ("options", "name", "word"),
    [
        (RunOptions, "order", "input|ifd"),
        (RunOptions, "export", "llama-factory|trl|openai|alpaca"),
        (RunOptions, "quota", "COLUMN=QUOTA"),
        (RunOptions, "columns", "FIELD=COLUMN,..."),
        (RunOptions, "storage_options", "JSON"),
        (RunOptions, "input_storage_options", "JSON"),
        (RunOptions, "actors", "N|MIN:MAX"),
        (RunOptions, "unit_rows", "INTEGER"),
        (ShowOptions, "top", "INTEGER"),
        (RunOptions, "keep_fraction", "NUMBER"),
        (RunOptions, "diversify_to", "NUMBER"),
        (RunOptions, "model", "TEXT"),
        (CompareOptions, "at", "TEXT"),
    ],
)
def test_help_names_the_form_of_a_value(options: type[Options], name: str, word: str) -> None:
    assert metavar(options.model_fields[name].annotation) == word


def test_the_version_is_shown(sf_ray_cli: Cli) -> None:
    assert sf_ray_cli("--version") == (0, f"sf-ray {sf_ray.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "No such command 'nothing'"),
        (("run", "--no-such-option"), "No such option"),
        (("run",), "INPUT is missing"),
        (("score", "in", "out"), "--model is missing"),
        (("select", "in", "scores", "out", "--keep-fraction", "ten"), "--keep-fraction: input"),
        (("run", "--config", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
    ],
)
def test_wrong_usage_is_exit_code_2_without_a_traceback(
    arguments: tuple[str, ...], words: str, sf_ray_cli: Cli
) -> None:
    code, _, err = sf_ray_cli(*arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(sf_ray_cli: Cli) -> None:
    code, _, err = sf_ray_cli("run", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_the_job_scripts_are_the_commands() -> None:
    for name in ("run", "score", "select"):
        done = subprocess.run(
            [sys.executable, f"jobs/{name}.py", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert COMMANDS[name].help in done.stdout
