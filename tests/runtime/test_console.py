import ast
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import sf_ray
from sf_ray.runtime.console import SafeConsole, emit
from sf_ray.text import redaction

# The modules that have an exit: log lines, results, and what click and the JSON log say themselves.
_EXITS = {"runtime/log.py", "runtime/json_log.py", "runtime/console.py", "cli.py"}


def exits_of(source: str) -> list[str]:
    """Calls in a module that write to standard output or error, or make a console that does."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {ast.unparse(call) for call in calls}
    return [name for name in names if name.split(".")[-1] in ("print", "Console", "echo", "secho")]


def test_whatever_is_printed_goes_through_an_exit() -> None:
    root = Path(sf_ray.__file__).parent
    printing = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if {*exits_of(path.read_text(encoding="utf-8"))} - {"console.print"}
    }
    assert printing == _EXITS


def test_the_console_passes_no_control_of_a_text_on(capsys: pytest.CaptureFixture[str]) -> None:
    console = SafeConsole()
    table = Table("\x1b[2Jhead", "\u202ehead")
    table.add_row(Text("a\x1bb"), "[link=http://x]c[/]")
    console.print(table)
    console.print("\x9b1A :smile: [bold]d", soft_wrap=True)
    console.rule("\x07 title")
    printed = capsys.readouterr().out
    assert not {"\x1b", "\r", "\x9b", "\x07", "\u202e"} & {*printed}
    for shown in ("\\x1b[2J", "\\u202ehead", "a\\x1bb", "[link=http://x]c[/]", "[bold]d"):
        assert shown in printed


def test_nothing_printed_has_a_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_given", {"canary"})
    SafeConsole().print("a canary b")
    emit("a canary b \x1b\nhttps://u:p@h/a?sig=s")
    assert capsys.readouterr().out == "a *** b\na *** b \\x1b\nhttps://h/a?sig=***\n"
