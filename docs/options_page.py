"""Prints docs/options.md, the page of all options, from their one definition; see `make docs`.

Knows the models in `config` and how the command line shows a value. Does not know what an option
does.
"""

from pydantic.fields import FieldInfo

from sf_ray.cli import metavar
from sf_ray.config.registry import COMMANDS, Command

_HEAD = """\
# Options

Every option of every command, from their one definition in `sf_ray/config/` (`make
docs` writes this page). Give options as flags, or by key in a YAML file that `--config job.yaml`
names; flags win. Options in capitals are given by their place on the command line. Several commands
can share a file: each command takes the keys of its options, and a key of no command is an error.

    model: demo
    keep_fraction: 0.1
    quota: {source: {code: 0.2, "*": 0.05}}

Beside these, every command takes `--help` and `--debug`, which shows the traceback of an error,
every one but `demo` takes `--config FILE`, and `sf-ray --version` prints the version.
"""
_COMMANDS = """
| command | what it does |
| --- | --- |
"""
_TABLE = """
| option | value | key | default | commands | meaning |
| --- | --- | --- | --- | --- | --- |
"""


def options_page() -> str:
    """The page as Markdown: a table of commands, then a table for each class of options."""
    # Class -> (option, whether it is positional) -> the commands that have it.
    tables: dict[type, dict[tuple[str, bool], list[Command]]] = {}
    for command in COMMANDS.values():
        for name in command.options.model_fields:
            table = tables.setdefault(_defined_in(command.options, name), {})
            table.setdefault((name, name in command.positional), []).append(command)
    parts = [_HEAD, _COMMANDS, *map(_usage, COMMANDS.values())]
    for options, rows in tables.items():
        parts.append(f"\n## {_title(options)}\n{_TABLE}")
        parts += [
            _line(name, positional, commands) for (name, positional), commands in rows.items()
        ]
    return "".join(parts)


def _usage(command: Command) -> str:
    places = "".join(f" {name.upper()}" for name in command.positional)
    return _row(f"`sf-ray {command.name}{places}`", command.help)


def _defined_in(options: type, name: str) -> type:
    """The class among the bases of a command's options that defines an option."""
    return next(base for base in options.__mro__ if name in vars(base).get("__annotations__", {}))


def _title(options: type) -> str:
    return (options.__doc__ or options.__name__).splitlines()[0].rstrip(".")


def _line(name: str, is_positional: bool, commands: list[Command]) -> str:
    field = commands[0].options.model_fields[name]
    return _row(
        f"`{name.upper()}`" if is_positional else f"`--{name.replace('_', '-')}`",
        _value(field, is_positional),
        f"`{name}`",
        _default(field),
        ", ".join(command.name for command in commands),
        field.description or "",
    )


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _value(field: FieldInfo, is_positional: bool) -> str:
    if field.annotation is bool:
        return "`true` in a file"
    return "a path or URI" if is_positional else f"`{metavar(field.annotation)}`"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    if field.default in (None, {}):
        return ""
    return f"`{str(field.default).lower() if field.annotation is bool else field.default}`"


if __name__ == "__main__":
    print(options_page(), end="")
