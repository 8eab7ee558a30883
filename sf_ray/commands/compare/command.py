"""`sf-ray compare`: two score sets of one corpus -> tables in the terminal, and a page. No Ray."""

from sf_ray.commands.compare.join import compare_sets
from sf_ray.commands.compare.page import render_page
from sf_ray.commands.compare.tables import tables_of
from sf_ray.commands.locations import location_of, refuse_unwritable
from sf_ray.config.options import CompareOptions
from sf_ray.output.report.text_table import print_tables
from sf_ray.runtime.console import emit
from sf_ray.runtime.log import say
from sf_ray.scoring.score_set import find_score_set
from sf_ray.storage.files import put_bytes
from sf_ray.text.printable import printable


def compare(options: CompareOptions) -> None:
    """Compares the scores of two models, and prints how alike they are."""
    if options.page is not None:
        refuse_unwritable("--page", options.page)
    a, b = (
        find_score_set(location_of(options, uri), scoring_id, f"--scoring-id-{side}")
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
        page = location_of(options, options.page)
        put_bytes(page, render_page(comparison, options.max_ifd).encode())
        emit(f"\npage  {printable(page.public_uri)}")
