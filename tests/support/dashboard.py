"""The Grafana dashboard of `cluster/`: its panels and what they ask Prometheus."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser

ROOT = Path(__file__).parents[2]

DASHBOARD = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text(encoding="utf-8"))

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def parsed(expression: str) -> Any:
    expression = expression.replace("$__rate_interval", "1m").replace("$run_id", ".+")
    return promql_parser.parse(expression)


def selectors(node: Any) -> Iterator[Any]:
    """All that selects series in a query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for child in ("lhs", "rhs", "expr", "vector_selector"):
        if hasattr(node, child):
            yield from selectors(getattr(node, child))
    for argument in getattr(node, "args", ()):
        yield from selectors(argument)
