"""`sf-ray compare`: two score sets of one corpus -> a table, and a page. No Ray, no model."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sf_ray.commands.compare.join import compare_sets
from sf_ray.commands.compare.tables import TextTable, tables_of
from sf_ray.compare_page import render_comparison
from sf_ray.config.options import CompareOptions
from sf_ray.runtime.log import say
from sf_ray.scoring.score_set import find_score_set
from sf_ray.storage.files import put_bytes
from sf_ray.storage.location import Location


def compare(options: CompareOptions) -> None:
    """Compares the scores of two models and says what it finds."""
    a, b = (
        find_score_set(_location(options, uri), scoring_id, f"--scoring-id-{side}")
        for side, uri, scoring_id in (
            ("a", options.scores_a, options.scoring_id_a),
            ("b", options.scores_b, options.scoring_id_b),
        )
    )
    fractions = sorted(set(options.at))
    comparison = compare_sets(a, b, fractions, options.max_ifd, options.partial)
    for note in comparison.notes:
        say(f"note: {note}")
    print_tables(tables_of(comparison, options.max_ifd))
    if options.page is not None:
        where = _location(options, options.page)
        put_bytes(where, render_comparison(comparison, options.max_ifd).encode())
        console = Console()
        console.print(f"\npage  {where.public_uri}", soft_wrap=True, highlight=False, markup=False)


def print_tables(tables: Sequence[TextTable]) -> None:
    """Prints tables, one below the other."""
    console = Console()
    for number, told in enumerate(tables):
        if number:
            console.print()
        if told.title:
            console.print(told.title, style="bold", highlight=False, markup=False, soft_wrap=True)
        has_head = any(told.columns)
        table = Table(show_header=has_head, box=None, pad_edge=False)
        for place, name in enumerate(told.columns):
            is_figure = place > 0 and not told.is_text
            table.add_column(
                Text(name),
                justify="right" if is_figure else "left",
                overflow="fold",
                no_wrap=is_figure or (told.is_text and not place),
            )
        for row in told.rows:
            table.add_row(*map(Text, row))
        console.print(table)


def _location(options: CompareOptions, uri: str) -> Location:
    return Location(uri, options.storage_options, options.storage_retry_s)
