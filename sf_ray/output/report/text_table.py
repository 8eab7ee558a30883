"""Tables of text in the terminal. This module does not know what the texts are about."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from sf_ray.runtime.console import SafeConsole
from sf_ray.text.printable import printable


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: What the table shows; "" for none.
        columns: Names of the columns; the first column names the rows. A table whose names are all
            "" is shown without a head.
        rows: For every row one text a column.
        is_text: Whether the cells are words, which stand at the left and may wrap; else figures.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: bool = False


def print_tables(tables: Sequence[TextTable]) -> None:
    """Prints tables, one below the other."""
    console = SafeConsole()
    for number, table in enumerate(tables):
        if number:
            console.print()
        if table.title:
            console.print(table.title, style="bold", soft_wrap=True)
        console.print(_rendered(table))


def _rendered(table: TextTable) -> Table:
    rendered = Table(show_header=any(table.columns), box=None, pad_edge=False)
    for number, name in enumerate(table.columns):
        is_figure = number > 0 and not table.is_text
        rendered.add_column(
            Text(printable(name)),
            justify="right" if is_figure else "left",
            overflow="fold",
            no_wrap=is_figure or (table.is_text and not number),
        )
    for row in table.rows:
        rendered.add_row(*(Text(printable(cell)) for cell in row))
    return rendered
