from pathlib import Path

from docs.options_page import options_page
from sf_ray.config.registry import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_of_options_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == options_page(), "run `make docs`"


def test_every_option_of_every_command_stands_on_it_once() -> None:
    rows = [line.split(" | ") for line in options_page().splitlines() if line.startswith("| ")]
    documented = [
        (cells[2], name) for cells in rows if len(cells) > 5 for name in cells[4].split(", ")
    ]
    for command in COMMANDS.values():
        for option in command.options.model_fields:
            assert documented.count((f"`{option}`", command.name)) == 1, (option, command.name)


def test_bars_in_choices_do_not_end_a_cell() -> None:
    (row,) = [line for line in options_page().splitlines() if line.startswith("| `--order`")]
    assert "`input\\|ifd`" in row
    assert row.replace("\\|", "").count("|") == 7
