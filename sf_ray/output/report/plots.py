"""Plots as SVG text to stand in a page, in the page's own colours.

Drawn by matplotlib with stand-in colours, which become CSS variables: one drawing is readable on a
light screen, a dark one and on paper. Knows nothing of runs.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

# What is drawn in these colours takes those of the page's variables.
INK, MUTED, LINE, KEPT, REST, MARK = (f"#00000{number}" for number in range(1, 7))
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    KEPT: "--kept",
    REST: "--rest",
    MARK: "--mark",
}
# A density is a picture, which cannot take the page's colours: one that is seen on white and black.
_DENSITY_RGB = (0.22, 0.49, 0.78)
# Fewer rows than this are shown as points.
MOST_POINTS = 2000
_MOST_TICKS = 6
_STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "grid.color": LINE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
}


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    Attributes:
        label: What it shows.
        edges: [bins + 1] of a density's bins, evenly spaced in what is drawn.
        ticks: Where there is a number; none: where matplotlib wants one.
        texts: What stands there.
    """

    label: str
    edges: Floats
    ticks: Sequence[float] = ()
    texts: Sequence[str] = ()

    def within(self, low: float, high: float) -> "Axis":
        """The same axis with no more ticks than there is room for, of those in sight."""
        seen = [at for at, tick in enumerate(self.ticks) if low <= tick <= high]
        seen = seen[:: -(-len(seen) // _MOST_TICKS) or 1]
        return replace(
            self, ticks=[self.ticks[at] for at in seen], texts=[self.texts[at] for at in seen]
        )


@dataclass(frozen=True)
class Line:
    """A line through a plot, told by a text at its end.

    Attributes:
        at: Its x, or its y where it is level; of a diagonal anything.
        text: What it stands for.
        kind: "upright", "level" or "diagonal".
    """

    at: float
    text: str = ""
    kind: str = "upright"


@dataclass(frozen=True)
class Scatter:
    """Rows as points.

    Attributes:
        x, y: [n] in the units of the axes.
        kept: [n] are drawn in another colour.
    """

    x: Floats
    y: Floats
    kept: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))


def histogram(
    name: str,
    axis: Axis,
    rest: NDArray[np.int64],
    kept: NDArray[np.int64],
    lines: Sequence[Line],
    width: float = 7.8,
) -> str:
    """Stacked bars: [bins] kept rows, and [bins] others on top of them; as SVG.

    Args:
        name: Tells this plot from the others of a page.
        axis: Across.
        rest, kept: [bins] rows.
        lines: To draw through it.
        width: In inches, at the size of the text: a narrow one is for narrow screens.
    """
    with _drawing() as new:
        figure, axes = new(width, 2.9)
        left, widths = axis.edges[:-1], np.diff(axis.edges)
        bars = {"align": "edge", "linewidth": 0}
        axes.bar(left, kept, widths, color=KEPT, label="kept", **bars)
        axes.bar(left, rest, widths, bottom=kept, color=REST, label="not kept", **bars)
        axes.set_ylabel("rows")
        axes.set_ylim(0, max(1, int((rest + kept).max(initial=0))) * 1.18)
        axes.yaxis.get_major_locator().set_params(integer=True)
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
        return _svg(figure, name)


def density(
    name: str,
    x: Axis,
    y: Axis,
    counts: NDArray[np.int64],
    points: Scatter,
    lines: Sequence[Line] = (),
) -> str:
    """Rows by two of their values, as SVG: points where they are few, else darker where many are.

    Args:
        name: Tells this plot from the others of a page.
        x, y: The axes.
        counts: [x bins, y bins] rows.
        points: The rows one by one; drawn where they are all of the rows.
        lines: To draw through it.
    """
    with _drawing() as new:
        figure, axes = new(3.6, 3.1)
        limits = _limits(x, counts.sum(axis=1)), _limits(y, counts.sum(axis=0))
        if int(counts.sum()) <= min(MOST_POINTS, len(points.x)):
            kept = points.kept if len(points.kept) else np.zeros(len(points.x), np.bool_)
            at = np.clip(points.x, *x.edges[[0, -1]]), np.clip(points.y, *y.edges[[0, -1]])
            dots = {"s": 9, "linewidths": 0, "alpha": 0.75}
            axes.scatter(at[0][~kept], at[1][~kept], color=REST, **dots)
            axes.scatter(at[0][kept], at[1][kept], color=KEPT, **dots)
        else:
            alpha = np.log1p(counts.T) / np.log1p(counts.max())
            pixels = np.empty((*alpha.shape, 4))
            pixels[..., :3] = _DENSITY_RGB
            # One row is seen at all.
            pixels[..., 3] = np.where(counts.T > 0, 0.12 + 0.88 * alpha, 0)
            extent = (*x.edges[[0, -1]], *y.edges[[0, -1]])
            axes.imshow(
                pixels, origin="lower", extent=extent, aspect="auto", interpolation="nearest"
            )
        # Ticks may widen an axis.
        _label(axes, x.within(*limits[0]), y.within(*limits[1]))
        axes.set_xlim(limits[0])
        axes.set_ylim(limits[1])
        _draw_lines(axes, lines)
        return _svg(figure, name)


def _limits(axis: Axis, counts: NDArray[np.int64]) -> tuple[float, float]:
    """From the first to the last bin that has rows, and a little more."""
    occur = np.flatnonzero(counts)
    if not len(occur):
        return float(axis.edges[0]), float(axis.edges[-1])
    spare = max(1, (occur[-1] - occur[0]) // 16)
    low, high = max(0, occur[0] - spare), min(len(axis.edges) - 1, occur[-1] + 1 + spare)
    return float(axis.edges[low]), float(axis.edges[high])


def _label(axes: "Axes", x: Axis, y: Axis | None) -> None:
    axes.set_xlabel(x.label)
    if len(x.ticks):
        axes.set_xticks(list(x.ticks), list(x.texts))
    if y is not None:
        axes.set_ylabel(y.label)
        if len(y.ticks):
            axes.set_yticks(list(y.ticks), list(y.texts))


def _draw_lines(axes: "Axes", lines: Sequence[Line]) -> None:
    # A line never widens an axis.
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
        # Away from the other lines, as long as there is room.
        is_left = line.at == min(one.at for one in upright) and line.at > np.mean(x_limits) / 2
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


class _drawing:  # noqa: N801 - used as a function
    """A context in which figures are drawn in our style, and none is left open."""

    def __enter__(self) -> Any:
        # Imports for most of a second: nobody pays who draws nothing.
        import matplotlib as mpl
        from matplotlib.figure import Figure

        self._style = mpl.rc_context(_STYLE)
        self._style.__enter__()

        def new(width: float, height: float) -> tuple[Figure, "Axes"]:
            figure = Figure(figsize=(width, height), layout="constrained")
            return figure, figure.add_subplot()

        return new

    def __exit__(self, *error: Any) -> None:
        self._style.__exit__(*error)


def _svg(figure: Any, name: str) -> str:
    import matplotlib as mpl

    file = io.StringIO()
    # The same drawing is the same text, and ids of two drawings in a page differ.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.patch.set_visible(False)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        figure.savefig(
            file, format="svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"])
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # Ids such as axes_1 are no hashes.
    text = re.sub(r'id="(?=[\w.]+_\d+")', f'id="{name}-', text)
    text = re.sub(r" font-family: [^;]+;", "", text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', text, count=1)
