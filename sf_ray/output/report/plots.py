"""Plots of reports: a histogram of bars, and a density of rows by two values. As SVG text.

This module does not know what a run is: it draws counts and points between axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sf_ray.output.report.svg import KEPT, MARK, MUTED, REST, as_svg, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A density is an image of pixels, which cannot use the page's colours: this blue can be seen on
# white and on black.
_DENSITY_RGB = (0.22, 0.49, 0.78)
# At most this many rows are shown as points.
MOST_POINTS = 2000
_MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    Attributes:
        label: What it shows.
        edges: [bins + 1] of the bins, evenly spaced, in the units of what is drawn.
        ticks: Where numbers stand; empty leaves that to matplotlib.
        texts: One for each tick.
    """

    label: str
    edges: Floats
    ticks: Sequence[float] = ()
    texts: Sequence[str] = ()

    def within(self, low: float, high: float) -> "Axis":
        """The same axis with the ticks between two values, thinned out where they are many."""
        seen = [at for at, tick in enumerate(self.ticks) if low <= tick <= high]
        seen = seen[:: -(-len(seen) // _MOST_TICKS) or 1]
        return replace(
            self, ticks=[self.ticks[at] for at in seen], texts=[self.texts[at] for at in seen]
        )


@dataclass(frozen=True)
class Line:
    """A dashed line through a plot.

    Attributes:
        at: Its x where it is upright, its y where it is level; not used for a diagonal.
        text: Stands at its upper end where it is upright.
        kind: Its direction.
    """

    at: float
    text: str = ""
    kind: Literal["upright", "level", "diagonal"] = "upright"


@dataclass(frozen=True)
class Scatter:
    """Rows as points.

    Attributes:
        x: [n] in the units of the axis.
        y: [n] in the units of the axis.
        kept: [n] points in the colour of kept rows; [0] for no point.
    """

    x: Floats
    y: Floats
    kept: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))


def histogram(
    name: str, axis: Axis, rest: Ints, kept: Ints, lines: Sequence[Line], width: float
) -> str:
    """Draws bars: kept rows, and the rest on top of them.

    Args:
        name: Distinguishes this plot from others of the page.
        axis: The axis across.
        rest: [bins] rows that are not kept.
        kept: [bins] rows that are kept.
        lines: Lines through the plot.
        width: In inches, at the size of the text.
    """
    with drawing(width, 2.9) as (figure, axes):
        # One outline for each colour: a patch for every bar would take most of the time of a page.
        for tops, bottoms, colour, label in (
            (kept, np.zeros_like(kept), KEPT, "kept"),
            (kept + rest, kept, REST, "not kept"),
        ):
            axes.stairs(
                tops,
                axis.edges,
                baseline=bottoms,
                fill=True,
                linewidth=0,
                color=colour,
                label=label,
            )
        axes.set_ylabel("rows")
        # Room above the bars for the texts of the lines and the legend.
        axes.set_ylim(0, max(1, int((rest + kept).max(initial=0))) * 1.18)
        axes.locator_params(axis="y", integer=True)
        axes.yaxis.set_major_formatter(_thousands)
        axes.grid(axis="x", visible=False)
        _label(axes, axis, None)
        axes.set_xlim(axis.edges[0], axis.edges[-1])
        _draw_lines(axes, lines)
        if kept.any():
            axes.legend(
                frameon=False,
                loc="lower right",
                bbox_to_anchor=(1, 0.98),
                ncols=2,
                labelcolor=MUTED,
                fontsize=10,
            )
        return as_svg(figure, name)


def density(
    name: str, x: Axis, y: Axis, counts: Ints, points: Scatter, lines: Sequence[Line] = ()
) -> str:
    """Draws rows by two of their values: few rows as points, many as an image of their density.

    Args:
        name: Distinguishes this plot from others of the page.
        x: The axis across.
        y: The axis upward.
        counts: [x bins, y bins] rows.
        points: The rows one by one, or a sample of them, which is drawn only if it has all rows.
        lines: Lines through the plot.
    """
    with drawing(3.6, 3.1) as (figure, axes):
        x_limits, y_limits = _limits(x, counts.sum(axis=1)), _limits(y, counts.sum(axis=0))
        if int(counts.sum()) <= min(MOST_POINTS, len(points.x)):
            _draw_points(axes, x, y, points)
        else:
            _draw_pixels(axes, x, y, counts)
        # Ticks may widen an axis, so the limits are set after them.
        _label(axes, x.within(*x_limits), y.within(*y_limits))
        axes.set_xlim(x_limits)
        axes.set_ylim(y_limits)
        _draw_lines(axes, lines)
        return as_svg(figure, name)


def dots(name: str, label: str, groups: Mapping[str, Sequence[float]]) -> str:
    """Draws the values of groups as points, a line a group, with a mark at the mean.

    Args:
        name: Distinguishes this plot from others of the page.
        label: What the values are.
        groups: Group -> its values; the first one stands at the top.
    """
    with drawing(4.8, 0.8 + 0.32 * len(groups)) as (figure, axes):
        for line, values in enumerate(groups.values()):
            axes.scatter(values, [line] * len(values), s=22, linewidths=0, alpha=0.75, color=KEPT)
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [line - 0.3, line + 0.3], linewidth=1.6, color=MUTED)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        return as_svg(figure, name)


def _draw_points(axes: "Axes", x: Axis, y: Axis, points: Scatter) -> None:
    """Draws points; those beyond an axis stand at its end."""
    kept = points.kept if len(points.kept) else np.zeros(len(points.x), np.bool_)
    xs, ys = np.clip(points.x, *x.edges[[0, -1]]), np.clip(points.y, *y.edges[[0, -1]])
    # Kept rows last, so that the others do not hide them.
    for shown, colour in ((~kept, REST), (kept, KEPT)):
        axes.scatter(xs[shown], ys[shown], s=9, linewidths=0, alpha=0.75, color=colour)


def _draw_pixels(axes: "Axes", x: Axis, y: Axis, counts: Ints) -> None:
    """Draws [x bins, y bins] rows as pixels: the more rows, the less transparent."""
    opacity = np.log1p(counts.T) / np.log1p(counts.max())
    pixels = np.empty((*opacity.shape, 4))
    pixels[..., :3] = _DENSITY_RGB
    # From 0.12 on, so that a bin of one row among millions can be seen.
    pixels[..., 3] = np.where(counts.T > 0, 0.12 + 0.88 * opacity, 0)
    extent = (*x.edges[[0, -1]], *y.edges[[0, -1]])
    axes.imshow(pixels, origin="lower", extent=extent, aspect="auto", interpolation="nearest")


def _limits(axis: Axis, counts: Ints) -> tuple[float, float]:
    """From the first to the last bin that has rows, and a little more on both sides."""
    occur = np.flatnonzero(counts)
    if not len(occur):
        return float(axis.edges[0]), float(axis.edges[-1])
    spare = max(1, (occur[-1] - occur[0]) // 16)
    low, high = max(0, occur[0] - spare), min(len(axis.edges) - 1, occur[-1] + 1 + spare)
    return float(axis.edges[low]), float(axis.edges[high])


def _label(axes: "Axes", x: Axis, y: Axis | None) -> None:
    """Writes labels and ticks; the y axis keeps those that it has where None is given."""
    axes.set_xlabel(x.label)
    if len(x.ticks):
        axes.set_xticks(list(x.ticks), list(x.texts))
    if y is not None:
        axes.set_ylabel(y.label)
        if len(y.ticks):
            axes.set_yticks(list(y.ticks), list(y.texts))


def _draw_lines(axes: "Axes", lines: Sequence[Line]) -> None:
    # matplotlib widens an axis to show a line; the limits of before are put back at the end.
    x_limits, y_limits = axes.get_xlim(), axes.get_ylim()
    style: dict[str, Any] = {"color": MARK, "linewidth": 1.1, "linestyle": (0, (4, 3))}
    upright = [line for line in lines if line.kind == "upright"]
    for line in lines:
        if line.kind == "diagonal":
            axes.plot([-9, 99], [-9, 99], **style)
        elif line.kind == "level":
            axes.axhline(line.at, **style)
    for line in upright:
        if not x_limits[0] <= line.at <= x_limits[1]:
            continue
        axes.axvline(line.at, **style)
        # The text of the leftmost line stands at its left, as long as there is room, so that it
        # does not run into the text of the next line.
        is_left = line.at == min(other.at for other in upright) and line.at > np.mean(x_limits) / 2
        axes.annotate(
            line.text,
            (line.at, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if is_left else 4, 0),
            textcoords="offset points",
            ha="right" if is_left else "left",
            va="top",
            color=MARK,
            fontsize=10,
        )
    axes.set_xlim(x_limits)
    axes.set_ylim(y_limits)


def short(number: float) -> str:
    """1, 10, 100, 1k, 10k, 1M: for the ticks of an axis."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.0f}{suffix}"
    return f"{number:.0f}"


def _thousands(value: float, _: object) -> str:
    return f"{value:,.0f}"
