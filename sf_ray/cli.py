"""Commands: parse, call, exit code. Flags come from `config`; heavy imports come after parsing."""

import importlib
import platform
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Literal, get_args, get_origin

import click

import sf_ray
from sf_ray.config.registry import COMMANDS, Command, load
from sf_ray.errors import SfRayError
from sf_ray.runtime.json_log import begin_log
from sf_ray.runtime.log import say


def main(arguments: Sequence[str] | None = None, *given: object) -> int:
    """Runs a command line; returns the exit code.

    0 done, 1 failed, 2 wrong usage, 3 done without some shards, 130 and 143 stopped by a signal.

    Args:
        arguments: Those of this process where they are left out.
        given: What the command's function takes behind its options: tests and benches give their
            own `Specs` to commands that score.
    """
    try:
        skipped = _group(given).main(args=arguments, prog_name="sf-ray", standalone_mode=False)
    except click.ClickException as error:
        error.show()
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
    return 3 if isinstance(skipped, tuple) and skipped else 0


def _stopped() -> int:
    say("stopped; the same command goes on where this one was", exit_code=130)
    return 130


def _group(given: Sequence[object]) -> click.Group:
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
        group.add_command(_click_command(command, given))
    return group


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"sf-ray {sf_ray.__version__}")
        context.exit()


def _click_command(command: Command, given: Sequence[object]) -> click.Command:
    params: list[click.Parameter] = [
        click.Argument([name], required=False) for name in command.positional
    ]
    for name, field in command.options.model_fields.items():
        if name in command.positional:
            continue
        flag = "--" + name.replace("_", "-")
        default = field.default
        shown = (
            "" if field.is_required() or default in (None, {}, False) else f" Default: {default}."
        )
        help_text = (field.description or "") + shown
        if field.annotation is bool:
            option = click.Option([flag], is_flag=True, default=None, help=help_text)
        else:
            option = click.Option([flag], metavar=metavar(field.annotation), help=help_text)
        params.append(option)
    if command.name != "demo":
        params.append(
            click.Option(
                ["--config"], metavar="FILE", help="YAML file with these options; flags win."
            )
        )
    params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))
    help_text = command.help
    if command.positional:
        known = command.options.model_fields
        help_text += "\n\n\b\n" + "\n".join(
            f"{name.upper():7} {known[name].description}" for name in command.positional
        )
    return click.Command(
        command.name,
        params=params,
        help=help_text,
        callback=_callback(command, given),
        context_settings={"max_content_width": 100},
    )


def metavar(annotation: Any) -> str:
    """What stands behind a flag in --help: the choices, or the type."""
    for one in (annotation, *get_args(annotation)):  # which may be optional
        if get_origin(one) is Literal:
            return "|".join(get_args(one))
    text = str(annotation)
    if "Quota" in text:
        return "COLUMN=QUOTA"
    if "dict" in text:
        return "JSON" if "Any" in text else "FIELD=COLUMN,..."
    if "tuple" in text:
        return "N|MIN:MAX"
    if "share_from" in text:
        return "NUMBER"
    for kind, name in ((int, "INTEGER"), (float, "NUMBER")):
        if annotation is kind or kind in get_args(annotation):
            return name
    return "TEXT"


def _callback(command: Command, given: Sequence[object]) -> Callable[..., Any]:
    def call(debug: bool, config: str | None = None, **flags: Any) -> Any:
        try:
            options = load(command, flags, config)
            _begin_log(command, getattr(options, "log_format", "text"))
            module, _, function = command.entry.partition(":")
            return getattr(importlib.import_module(f"sf_ray.{module}"), function)(options, *given)
        except Exception:
            if debug:
                say(traceback.format_exc().rstrip())
            raise

    return call


def _begin_log(command: Command, log_format: str) -> None:
    begin_log(log_format)
    if log_format == "json":  # people have the manifest for this
        versions = {name: version(name) for name in ("ray", "torch", "transformers")}
        say(
            f"sf-ray {command.name}",
            command=command.name,
            sf_ray=sf_ray.__version__,
            python=platform.python_version(),
            **versions,
        )
