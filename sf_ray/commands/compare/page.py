"""A comparison as one HTML page: its tables, and a plot of the IFD by both models.

Knows neither how scores are compared nor where the page goes.
"""

import numpy as np
from markupsafe import Markup

import sf_ray
from sf_ray.commands.compare.join import Comparison
from sf_ray.commands.compare.tables import tables_of
from sf_ray.output.report.html import render
from sf_ray.output.report.plots import Axis, Line, Scatter, density

# The IFD at which the plot ends (rows above it stand at the edge), and the bins on each axis.
_MOST_IFD, _BINS = 2.0, 100


def render_page(comparison: Comparison, max_ifd: float) -> str:
    """Renders the page; `max_ifd` is the bound below which rows were selected."""
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
    axes = Axis("IFD of A", edges), Axis("IFD of B", edges)
    return density("ifd", *axes, counts, Scatter(a, b), lines)


def _above(comparison: Comparison) -> str:
    is_above = (comparison.ifd_a > _MOST_IFD) | (comparison.ifd_b > _MOST_IFD)
    rows = int(is_above.sum())
    return f"Rows with an IFD above {_MOST_IFD:g} stand at the edge: {rows:,}." if rows else ""
