"""The command line: parses arguments, calls the command's function, returns the exit code.

Builds the flags of every command from the options in `config`, and prints errors without a
traceback. Imports the module of a command only after parsing, so that `--help` answers at once.
"""

import importlib
import io
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from types import NoneType, TracebackType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import click
from pydantic.fields import FieldInfo

import sf_ray
from sf_ray.config.quotas import Quota
from sf_ray.config.registry import COMMANDS, GROUPS, Command, load, may_be_secret
from sf_ray.errors import SfRayError
from sf_ray.runtime.json_log import begin_log
from sf_ray.runtime.log import say
from sf_ray.text.printable import printable_lines
from sf_ray.text.redaction import redact, remember_secrets


def main(arguments: Sequence[str] | None = None, specs: object | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: Arguments behind the program's name. Default: those of this process.
        specs: A `commands.setup.Specs` that the command uses in place of its default, for tests
            and benches that bring their own encoding, engine or embedder. Only for the commands
            that score or select (run, score, select, plan, probe, study).

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 done without some shards, 130 stopped by
        Ctrl-C, 143 stopped by SIGTERM.
    """
    _guard_streams()
    try:
        result = _group(specs).main(args=arguments, prog_name="sf-ray", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        print(printable_lines(redact(shown.getvalue().rstrip())), file=sys.stderr)
        return 2
    except click.Abort:
        return _stopped()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SfRayError as error:
        say(f"error: {error}", exit_code=error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        return _stopped()
    # A command that reads a corpus returns the shards that it skipped.
    return 3 if isinstance(result, tuple) and result else 0


def _guard_streams() -> None:
    """Makes standard output and the last words of an unforeseen error fit for text of others."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every terminal can write every name: what it cannot write is shown as an escape. That
        # is Python's own way for standard error.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.excepthook = _say_traceback
    threading.excepthook = lambda raised: _say_traceback(*raised[:3])


def _say_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    say("".join(traceback.format_exception(kind, error, trace)).rstrip())


def _stopped() -> int:
    say("stopped; the same command goes on where this one was", exit_code=130)
    return 130


def _group(specs: object | None) -> click.Group:
    group = click.Group(help="Score instruction data by IFD with a small model; keep the best.")
    group.params.append(
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        )
    )
    for command in COMMANDS.values():
        first, _, second = command.name.partition(" ")
        owner = group
        if second:
            owner = cast(click.Group, group.commands.get(first) or _subgroup(group, first))
        owner.add_command(click_command(command, specs))
    return group


def _subgroup(group: click.Group, name: str) -> click.Group:
    subgroup = click.Group(name, help=GROUPS[name])
    group.add_command(subgroup)
    return subgroup


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"sf-ray {sf_ray.__version__}")
        context.exit()


def click_command(command: Command, specs: object | None = None) -> click.Command:
    """The command as click parses it; flags keep their text, which `load` validates.

    Args:
        command: The command.
        specs: See `main`.
    """
    params: list[click.Parameter] = [
        # Not required here: an argument may stand in the YAML file instead.
        click.Argument([name], required=False)
        for name in command.positional
    ]
    params += [
        _click_option(name, field)
        for name, field in command.options.model_fields.items()
        if name not in command.positional
    ]
    if command.name != "demo":
        params.append(
            click.Option(
                ["--config"], metavar="FILE", help="YAML file with these options; flags win."
            )
        )
    params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))
    return click.Command(
        command.name.split()[-1],
        params=params,
        help=_help(command),
        callback=_callback(command, specs),
        context_settings={"max_content_width": 100},
    )


def _click_option(name: str, field: FieldInfo) -> click.Option:
    flag = "--" + name.replace("_", "-")
    has_default = not field.is_required() and field.default not in (None, {}, False)
    help_text = (field.description or "") + (f" Default: {field.default}." if has_default else "")
    if field.annotation is bool:
        # None where the flag is not given, so that the YAML file decides.
        return click.Option([flag], is_flag=True, default=None, help=help_text)
    return click.Option([flag], metavar=metavar(field.annotation), help=help_text)


def _help(command: Command) -> str:
    fields = command.options.model_fields
    places = [f"{name.upper():7} {fields[name].description}" for name in command.positional]
    if not places:
        return command.help
    return command.help + "\n\n\b\n" + "\n".join(places)  # \b: click keeps these lines as they are


def metavar(annotation: Any) -> str:
    """The word for an option's value in --help: its choices, its form or its type.

    Args:
        annotation: Type of the option in its model.
    """
    value_type = _value_type(annotation)
    origin, arguments = get_origin(value_type), get_args(value_type)
    if origin is Literal:
        return "|".join(arguments)
    if origin is dict and get_origin(arguments[0]) is Literal:
        return "ARM[:N],..."
    if origin is dict:
        return "JSON" if Any in arguments else "FIELD=COLUMN,..."
    if origin is list and get_origin(arguments[0]) is tuple:
        return "ARM=MODEL,..."
    if origin is tuple:
        return "ROWS|SIZE" if get_origin(arguments[0]) is Literal else "N|MIN:MAX"
    if value_type is Quota:
        return "COLUMN=QUOTA"
    if value_type is int:
        return "INTEGER"
    if value_type in (float, int | float):
        return "NUMBER"
    return "TEXT"


def _value_type(annotation: Any) -> Any:
    """The type without its bounds and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _value_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        if len(members) == 1:
            return _value_type(members[0])
    return annotation


def _callback(command: Command, specs: object | None) -> Callable[..., Any]:
    def call(debug: bool, config: str | None = None, **flags: Any) -> Any:
        try:
            options = load(command, flags, config)
            for name, value in options:
                if may_be_secret(name):
                    remember_secrets(options=value)
            _begin_log(command, getattr(options, "log_format", "text"))
            module, _, name = command.entry.partition(":")
            function = getattr(importlib.import_module(f"sf_ray.{module}"), name)
            return function(options) if specs is None else function(options, specs)
        except Exception:
            if debug:
                say(traceback.format_exc().rstrip())
            raise

    return call


def _begin_log(command: Command, log_format: str) -> None:
    begin_log(log_format)
    if log_format == "json":  # as text, versions would be noise: people find them in the manifest
        versions = {name: version(name) for name in ("ray", "torch", "transformers")}
        say(
            f"sf-ray {command.name}",
            command=command.name,
            sf_ray=sf_ray.__version__,
            python=platform.python_version(),
            **versions,
        )
