import pytest
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from sf_ray.runtime.metrics import METRICS
from tests.support.dashboard import DASHBOARD, PANELS, ROOT, parsed, selectors

# Metrics of Ray's raylet; tests/end_to_end/test_watching.py sees them at the endpoint.
OF_RAYLET = {"ray_object_store_used_memory", "ray_object_store_memory"}

QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]


@pytest.mark.parametrize("query", QUERIES)
def test_panels_ask_for_metrics_that_exist(query: str) -> None:
    ours = {metric.exported: metric for metric in METRICS.values()}
    of_rays = OF_RAYLET | {f"ray_{name}" for name in METRICS_GAUGES}
    found = list(selectors(parsed(query)))
    assert found
    for selector in found:
        assert selector.name in ours.keys() | of_rays
        labels = {matcher.name for matcher in selector.matchers.matchers}
        if metric := ours.get(selector.name):
            assert labels <= set(metric.tags)
            assert "run_id" in labels, "the dashboard's choice of runs must hold for every panel"


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {selector.name for query in QUERIES for selector in selectors(parsed(query.values[0]))}
    hidden = {metric.exported for metric in METRICS.values()} - shown
    assert hidden == {"ray_sf_ray_units_total", "ray_sf_ray_run_units"}


def test_counters_are_asked_for_by_the_name_that_they_get() -> None:
    assert METRICS["sf_ray_rows"].exported == "ray_sf_ray_rows_total"
    assert METRICS["sf_ray_run_rows"].exported == "ray_sf_ray_run_rows"


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert DASHBOARD["uid"] == "sf-ray"
    assert DASHBOARD["schemaVersion"] >= 36
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["run_id"]["datasource"]["uid"] == "${datasource}"
    assert "ray_sf_ray_run_rows" in variables["run_id"]["definition"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert [target["datasource"] for target in panel["targets"]] == [
            panel["datasource"] for _ in panel["targets"]
        ]


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_the_page_lists_every_metric_as_it_is_defined() -> None:
    page = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `ray_sf_ray_")]
    assert rows == [
        f"| `{metric.exported}` | {metric.kind} | {', '.join(metric.tags)} | {metric.help} |"
        for metric in METRICS.values()
    ]
