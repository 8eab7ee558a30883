"""What a command prints: the only way to standard output, and to a terminal with colours.

Names and texts of others are in much of what is printed, and a place that prints cannot know where
each came from. So all of it passes here: no character steers the terminal but those that Rich adds,
no text is read as Rich's markup, and no secret is shown. Log lines have a way of their own, `log`.
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sf_ray.text.printable import printable_lines
from sf_ray.text.redaction import redact


class SafeConsole(Console):
    """Rich's console, which passes controls of a text on to the terminal, without that."""

    def __init__(self, stderr: bool = False) -> None:
        # Markup is `[red]` and links, emoji are `:smile:`; a highlighter colours what it takes for
        # a path or a number.
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Renders to segments. Every text becomes one here, that of a cell of a table too."""
        for segment in super().render(renderable, options):
            if segment.control:  # of Rich: moves the cursor of a progress bar
                yield segment
            else:
                yield segment._replace(text=printable_lines(redact(segment.text)))


def emit(text: str) -> None:
    """Prints text to standard output as it is laid out."""
    print(printable_lines(redact(text)))
