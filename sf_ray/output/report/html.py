"""Templates of the package -> whole HTML pages that run no script and load nothing.

Texts of a corpus stand in the pages, and nobody knows what they contain. So every text is escaped,
also the signs that would turn the direction of what follows, and a content security policy in the
frame of every page forbids scripts and loading.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sf_ray.text.printable import printable_lines


def render(template: str, **values: Any) -> str:
    """Renders a page, or a part of somebody else's page.

    Args:
        template: Name of a template, without `.html.jinja`; that of a page extends the frame.
        values: The variables of the template. Every text is escaped, unless it is `Markup`.
    """
    loader = PackageLoader("sf_ray.output.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_without_controls
    )
    return environment.get_template(f"{template}.html.jinja").render(**values)


def _without_controls(value: object) -> object:
    """What of an expression's value gets into the page; it is escaped afterwards."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable_lines(str(value)) if is_text else value
