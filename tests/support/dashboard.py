"""The Grafana dashboard in cluster/: panels and their queries to Prometheus."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser

ROOT = Path(__file__).parents[2]

DASHBOARD = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text(encoding="utf-8"))

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def parsed(expression: str) -> Any:
    """The syntax tree of a query, with Grafana's variables filled in."""
    expression = expression.replace("$__rate_interval", "1m").replace("$run_id", ".+")
    return promql_parser.parse(expression)


def selectors(node: Any) -> Iterator[Any]:
    """Yields every selector of series in a query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for child in ("lhs", "rhs", "expr", "vector_selector"):
        if hasattr(node, child):
            yield from selectors(getattr(node, child))
    for argument in getattr(node, "args", ()):
        yield from selectors(argument)
