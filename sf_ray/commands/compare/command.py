"""`sf-ray compare`: two score sets of one corpus -> a table, and a page. No Ray, no model."""

from rich.console import Console

from sf_ray.commands.compare.join import compare_sets
from sf_ray.commands.compare.tables import render_comparison, tables_of
from sf_ray.config.options import CompareOptions
from sf_ray.output.report.terminal import print_tables
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


def _location(options: CompareOptions, uri: str) -> Location:
    return Location(uri, options.storage_options, options.storage_retry_s)
