"""Templates of the package -> pages that hold all they need, run no script and load nothing.

A policy in the frame of every page forbids both, whatever a corpus says; what is put in is escaped.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """A page, as HTML.

    Args:
        template: Its name, without `.html.jinja`; it extends the frame.
        values: What stands in it; all text is escaped that is no `Markup`.
    """
    loader = PackageLoader("sf_ray.output.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(f"{template}.html.jinja").render(**values)
