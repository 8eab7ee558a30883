"""A drawing of matplotlib -> SVG text that takes the colours of the page in which it stands.

Everything is drawn in stand-in colours, which then become the CSS variables of the page. So one
drawing can be read on a light screen, on a dark one and on paper. Knows nothing of what is drawn.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-in colours, and the variables of the page's frame that they become.
INK, MUTED, LINE, KEPT, REST, MARK = (f"#00000{number}" for number in range(1, 7))
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    KEPT: "--kept",
    REST: "--rest",
    MARK: "--mark",
}
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


def load() -> None:
    """Imports what drawing needs: a second's work, for a thread while the process waits."""
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple["Figure", "Axes"]]:
    """Opens a figure with one plot; inside the context, all is drawn in the style of the page.

    Args:
        width: In inches, at the size of the text.
        height: Likewise.
    """
    # Inside the function, because importing matplotlib takes most of a second.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def as_svg(figure: "Figure", name: str) -> str:
    """A figure as the text of an `svg` element. Call it inside the context of `drawing`.

    Args:
        figure: The figure.
        name: Distinguishes the ids in this plot from those in other plots of the page.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.StringIO()
    # Ids are hashes, random unless there is a salt. With the name as the salt the same figure
    # always gives the same text, and two plots of a page never share an id.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.patch.set_visible(False)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        metadata: dict[str, Any] = dict.fromkeys(["Date", "Creator", "Format", "Type"])
        # `Figure.savefig` would draw all of it twice, the first time only to lay it out, as
        # every drawing does.
        FigureCanvasSVG(figure).print_svg(file, metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # Ids such as axes_1 are not hashes, and the same in every figure.
    text = re.sub(r'id="(?=[\w.]+_\d+")', f'id="{name}-', text)
    text = re.sub(r" font-family: [^;]+;", "", text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', text, count=1)
