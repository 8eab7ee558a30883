"""A comparison as tables of text, for the terminal and for the page. Knows neither of them."""

import math
from collections.abc import Iterator

from sf_ray.commands.compare.consistency import Agreement, Consistency
from sf_ray.commands.compare.join import Comparison
from sf_ray.output.report.text_table import TextTable

_STATUS_PAIRS_SHOWN = 8


def tables_of(comparison: Comparison, max_ifd: float) -> list[TextTable]:
    """The tables of a comparison, from what was compared to what follows for a selection.

    Args:
        comparison: The comparison.
        max_ifd: The bound below which rows were selected.
    """
    consistency = comparison.consistency
    return [
        _sides(comparison),
        TextTable("", ("rows", "", ""), list(_row_counts(comparison))),
        _rank_correlations(comparison),
        _overlaps(consistency, max_ifd),
        _agreement(comparison.agreement),
    ]


def _sides(comparison: Comparison) -> TextTable:
    sides = (comparison.a, comparison.b)
    return TextTable(
        "",
        ("", "A", "B"),
        [
            ("model", *(side.model for side in sides)),
            ("scores", *(side.score_set.scoring_id for side in sides)),
            ("rows with scores", *(f"{side.rows:,}" for side in sides)),
            ("only on this side", *(f"{side.rows - comparison.rows:,}" for side in sides)),
        ],
        is_text=True,
    )


def _row_counts(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    def line(name: str, rows: int) -> tuple[str, str, str]:
        return name, f"{rows:,}", f"{rows / comparison.rows:.1%}"

    yield line("on both sides", comparison.rows)
    yield line("  ok on both", comparison.agreement.rows)
    yield line("  of different statuses", sum(comparison.statuses.values()))
    shown = list(comparison.statuses.items())[:_STATUS_PAIRS_SHOWN]
    for (status_a, status_b), rows in shown:
        yield line(f"    A {status_a}, B {status_b}", rows)
    if len(shown) < len(comparison.statuses):
        yield line("    others", sum(list(comparison.statuses.values())[_STATUS_PAIRS_SHOWN:]))


def _rank_correlations(comparison: Comparison) -> TextTable:
    consistency = comparison.consistency
    ranked = f"{consistency.rows:,} rows that are ok on both sides"
    if comparison.is_sample:
        ranked += f", of a sample of {comparison.ranked:,}"
    return TextTable(
        f"Spearman's rank correlation, {ranked}",
        ("", ""),
        [
            ("perplexity of the answer alone (direct)", number(consistency.ppl_direct)),
            ("perplexity behind the prompt (conditioned)", number(consistency.ppl_conditioned)),
            ("IFD", number(consistency.ifd)),
        ],
    )


def _overlaps(consistency: Consistency, max_ifd: float) -> TextTable:
    return TextTable(
        f"The best rows with IFD below {max_ifd:g}",
        ("keep", "rows", "A keeps", "B keeps", "both", "overlap"),
        [
            (
                percent(overlap.fraction),
                f"{overlap.wanted:,}",
                f"{overlap.kept_a:,}",
                f"{overlap.kept_b:,}",
                f"{overlap.both:,}",
                number(overlap.share),
            )
            for overlap in consistency.overlaps
        ],
    )


def _agreement(agreement: Agreement) -> TextTable:
    return TextTable(
        "IFD of 1 and above, where the prompt does not help",
        ("", "B: 1 and above", "B: below 1"),
        [
            ("A: 1 and above", f"{agreement.both:,}", f"{agreement.only_a:,}"),
            ("A: below 1", f"{agreement.only_b:,}", f"{agreement.neither:,}"),
            ("both say the same", number(agreement.share), ""),
        ],
    )


def number(value: float) -> str:
    """A share or a correlation as text; "none" for NaN, which must not look like a number."""
    return "none" if math.isnan(value) else f"{value:z.3f}"


def percent(fraction: float) -> str:
    """A fraction as the user wrote it: 0.05 is 5%, 0.125 is 12.5%."""
    return f"{fraction:.6%}".rstrip("0%").rstrip(".") + "%"
