"""The metrics of a run: names, types and tags, as Ray exports them to Prometheus.

Ray adds the prefix `ray_` to each name, and `_total` to the name of a counter. Where Ray's agent
does not run (`ray[data]` without `ray[default]`) the values are dropped. Only retries are reported
here; `scoring` reports the other values.
"""

from dataclasses import dataclass
from typing import Any, Literal

from ray.util import metrics as ray_metrics

from sf_ray.runtime.log import run_id


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Name that Ray is given.
        kind: "counter", which only grows during its run, or "gauge", which ends soon after the run.
        tags: Names of the labels of a series.
        help: What the value counts.
    """

    name: str
    kind: Literal["counter", "gauge"]
    tags: tuple[str, ...]
    help: str

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


# `run_id` costs no further series: Ray labels each driver with its WorkerId anyway.
_OF_RUN = ("run_id", "model", "corpus")

METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "sf_ray_rows",
            "counter",
            (*_OF_RUN, "status"),
            "Rows of finished units, by status: `ok`, or why there is no score.",
        ),
        Metric("sf_ray_units", "counter", _OF_RUN, "Finished units."),
        Metric(
            "sf_ray_tokens_computed",
            "counter",
            _OF_RUN,
            "Tokens that went through the model, in finished batches.",
        ),
        Metric(
            "sf_ray_tokens",
            "counter",
            _OF_RUN,
            "Tokens of finished units that were to be scored, in both passes.",
        ),
        Metric(
            "sf_ray_tokens_saved",
            "counter",
            _OF_RUN,
            "Part of `sf_ray_tokens`: tokens that repeat the beginning of another sequence of the "
            "unit, and were not computed again.",
        ),
        Metric(
            "sf_ray_oom_splits",
            "counter",
            _OF_RUN,
            "Batches that were halved because the device ran out of memory.",
        ),
        Metric(
            "sf_ray_retries",
            "counter",
            ("run_id", "what"),
            "Work that was begun again: `units` handed to an actor a second time after a process "
            "or node was lost; `scoring` that failed and was planned again from what is "
            "committed; `tasks` of other stages that had no result and were done again.",
        ),
        Metric("sf_ray_run_rows", "gauge", _OF_RUN, "Rows without scores when scoring began."),
        Metric(
            "sf_ray_run_rows_left",
            "gauge",
            _OF_RUN,
            "Part of `sf_ray_run_rows`: rows that are still to score.",
        ),
        Metric("sf_ray_run_units", "gauge", _OF_RUN, "Units without scores when scoring began."),
        Metric(
            "sf_ray_run_units_left",
            "gauge",
            _OF_RUN,
            "Part of `sf_ray_run_units`: units that are still to score.",
        ),
    )
}


def count_retries(what: Literal["scoring", "tasks"], number: int = 1) -> None:
    """Adds to the counter of work that is begun again; see `sf_ray_retries`."""
    instrument(METRICS["sf_ray_retries"]).inc(number, tags={"run_id": run_id(), "what": what})


def instrument(metric: Metric) -> Any:
    """Ray's object that holds the values of a metric in this process."""
    kinds = {"counter": ray_metrics.Counter, "gauge": ray_metrics.Gauge}
    return kinds[metric.kind](metric.name, description=metric.help, tag_keys=metric.tags)
