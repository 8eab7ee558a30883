"""Tables of text in the terminal."""

import pytest

from sf_ray.output.report.text_table import TextTable, print_tables


def printed(capsys: pytest.CaptureFixture[str], *tables: TextTable) -> list[str]:
    print_tables(tables)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_figures_stand_at_the_right_and_names_at_the_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = TextTable("Costs", ("model", "hours"), [("a", "1"), ("bb", "1,000")])
    assert printed(capsys, table) == [
        "Costs",
        "model  hours",
        "a          1",
        "bb     1,000",
    ]


def test_words_stand_at_the_left(capsys: pytest.CaptureFixture[str]) -> None:
    table = TextTable("", ("name", "what"), [("a", "x"), ("b", "a phrase")], is_text=True)
    assert printed(capsys, table) == ["name  what", "a     x", "b     a phrase"]


def test_a_table_without_names_has_no_head_and_tables_stand_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = TextTable("", ("", ""), [("a", "1")])
    assert printed(capsys, table, table) == ["a  1", "", "a  1"]


def test_text_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = TextTable("[bold]T[/]", ("[red]", "n"), [("[/]", "1")])
    assert printed(capsys, table) == ["[bold]T[/]", "[red]  n", "[/]    1"]
