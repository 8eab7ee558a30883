"""A comparison as tables of text, for the terminal and for a page. Knows neither of them."""

import math
from collections.abc import Iterator

import numpy as np
from markupsafe import Markup

import sf_ray
from sf_ray.commands.compare.join import Comparison
from sf_ray.output.report.html import render
from sf_ray.output.report.plots import Axis, Line, Scatter, density
from sf_ray.output.report.terminal import TextTable

_STATUSES_SHOWN = 8


def tables_of(comparison: Comparison, max_ifd: float) -> list[TextTable]:
    """All that a comparison says, from what is compared to what follows."""
    found, agreement = comparison.consistency, comparison.agreement
    ranked = f"{found.rows:,} rows that are ok on both sides"
    if comparison.is_sample:
        ranked += f", of a sample of {comparison.ranked:,}"
    sides = (comparison.a, comparison.b)
    return [
        TextTable(
            "",
            ("", "A", "B"),
            [
                ("model", *(side.model for side in sides)),
                ("scores", *(side.score_set.scoring_id for side in sides)),
                ("rows with scores", *(f"{side.rows:,}" for side in sides)),
                ("only on this side", *(f"{side.rows - comparison.rows:,}" for side in sides)),
            ],
            is_text=True,
        ),
        TextTable("", ("rows", "", ""), list(_rows(comparison))),
        TextTable(
            f"Spearman's rank correlation, {ranked}",
            ("", ""),
            [
                ("perplexity of the answer alone (direct)", number(found.ppl_direct)),
                ("perplexity behind the prompt (conditioned)", number(found.ppl_conditioned)),
                ("IFD", number(found.ifd)),
            ],
        ),
        TextTable(
            f"The best rows with IFD below {max_ifd:g}",
            ("keep", "rows", "A keeps", "B keeps", "both", "overlap"),
            [
                (
                    percent(one.fraction),
                    *(f"{rows:,}" for rows in (one.wanted, one.kept_a, one.kept_b, one.both)),
                    number(one.share),
                )
                for one in found.overlaps
            ],
        ),
        TextTable(
            "IFD of 1 and above, where the prompt does not help",
            ("", "B: 1 and above", "B: below 1"),
            [
                ("A: 1 and above", f"{agreement.both:,}", f"{agreement.only_a:,}"),
                ("A: below 1", f"{agreement.only_b:,}", f"{agreement.neither:,}"),
                ("both say the same", number(agreement.share), ""),
            ],
        ),
    ]


def _rows(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    def line(name: str, rows: int) -> tuple[str, str, str]:
        return name, f"{rows:,}", f"{rows / comparison.rows:.1%}"

    yield line("on both sides", comparison.rows)
    yield line("  ok on both", comparison.agreement.rows)
    yield line("  of different statuses", sum(comparison.statuses.values()))
    shown = list(comparison.statuses.items())[:_STATUSES_SHOWN]
    for (of_a, of_b), rows in shown:
        yield line(f"    A {of_a}, B {of_b}", rows)
    if len(shown) < len(comparison.statuses):
        yield line("    others", sum(list(comparison.statuses.values())[_STATUSES_SHOWN:]))


def number(value: float) -> str:
    """A share or a correlation; nothing that could be taken for one where there is none."""
    return "none" if math.isnan(value) else f"{value:z.3f}"


def percent(fraction: float) -> str:
    """A fraction as it was asked for: 0.05 is 5%, 0.125 is 12.5%."""
    return f"{fraction:.6%}".rstrip("0%").rstrip(".") + "%"


# IFD that the plot shows; what lies above stands at its edge.
_MOST_IFD, _BINS = 2.0, 100


def render_comparison(comparison: Comparison, max_ifd: float) -> str:
    """The whole page, as HTML."""
    return render(
        "compare",
        title=f"{comparison.a.model} against {comparison.b.model}",
        version=sf_ray.__version__,
        tables=tables_of(comparison, max_ifd),
        notes=comparison.notes,
        plot=Markup(_plot(comparison)),
        above=_above(comparison),
    )


def _plot(comparison: Comparison) -> str:
    is_ok = ~(np.isnan(comparison.ifd_a) | np.isnan(comparison.ifd_b))
    a, b = (np.minimum(ifd[is_ok], _MOST_IFD) for ifd in (comparison.ifd_a, comparison.ifd_b))
    edges = np.linspace(0, _MOST_IFD, _BINS + 1)
    counts = np.histogram2d(a, b, (edges, edges))[0].astype(np.int64)
    lines = [Line(0, kind="diagonal"), Line(1.0), Line(1.0, kind="level")]
    return density("ifd", Axis("IFD of A", edges), Axis("IFD of B", edges), counts,
                   Scatter(a, b), lines)  # fmt: skip


def _above(comparison: Comparison) -> str:
    rows = int(((comparison.ifd_a > _MOST_IFD) | (comparison.ifd_b > _MOST_IFD)).sum())
    return f"Rows with an IFD above {_MOST_IFD:g} stand at the edge: {rows:,}." if rows else ""
