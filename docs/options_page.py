"""The page of all options, made from their one definition: `make docs` writes docs/options.md.

Knows the models in `config` and how the command line shows a value; not what an option does.
"""

from pydantic.fields import FieldInfo

from sf_ray.cli import metavar
from sf_ray.config.registry import COMMANDS, Command

_HEAD = """\
# Options

Every option of every command, from their one definition in `sf_ray/config.py` (`make docs`
writes this page). Give them as flags, or by their key in a YAML file that `--config job.yaml`
names; flags win. What stands in capitals is given by place on the command line. Several commands
can share a file: each takes the keys that are its own, and a key that no command has is refused.

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
    """The page, as Markdown: a table for each group of options, in the order of the commands."""
    groups: dict[type, dict[tuple[str, bool], list[Command]]] = {}
    for command in COMMANDS.values():
        for name in command.options.model_fields:
            group = groups.setdefault(_defined_in(command.options, name), {})
            group.setdefault((name, name in command.positional), []).append(command)
    parts = [_HEAD, _COMMANDS, *map(_usage, COMMANDS.values())]
    for origin, names in groups.items():
        parts.append(f"\n## {_title(origin)}\n{_TABLE}")
        parts += [_line(*named, commands) for named, commands in names.items()]
    return "".join(parts)


def _usage(command: Command) -> str:
    places = "".join(f" {name.upper()}" for name in command.positional)
    return _row(f"`sf-ray {command.name}{places}`", command.help)


def _defined_in(options: type, name: str) -> type:
    """The class that defines an option, of those that a command's options inherit from."""
    return next(base for base in options.__mro__ if name in vars(base).get("__annotations__", {}))


def _title(origin: type) -> str:
    return (origin.__doc__ or origin.__name__).splitlines()[0].rstrip(".")


def _line(name: str, is_positional: bool, commands: list[Command]) -> str:
    field = commands[0].options.model_fields[name]
    return _row(
        f"`{name.upper()}`" if is_positional else f"`--{name.replace('_', '-')}`",
        _value(field, is_positional),
        f"`{name}`",
        _default(field),
        ", ".join(one.name for one in commands),
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
