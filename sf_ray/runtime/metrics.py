"""What a run tells Ray's metrics, and with them Prometheus: names, and how counts become values.

Ray writes `ray_` before each name, and `_total` behind a counter's. Where no agent of Ray runs
(`ray[data]` without `ray[default]`) the values go nowhere. Does not know who counts, nor who reads.
"""

from dataclasses import dataclass
from typing import Any, Literal

from ray.util import metrics as ray_metrics

from sf_ray.runtime.log import run_id


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As it is given to Ray.
        kind: A counter grows as long as its run lives; a gauge is gone soon after it.
        tags: What its series differ in.
        help: What it counts.
    """

    name: str
    kind: Literal["counter", "gauge"]
    tags: tuple[str, ...]
    help: str

    @property
    def exported(self) -> str:
        """Its name where it is scraped."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


# A driver is a series of its own in Ray anyway (its WorkerId): a run's id adds none.
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
            "Those of `sf_ray_tokens` that repeat others of their unit, and were not computed "
            "again.",
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
        Metric("sf_ray_run_rows", "gauge", _OF_RUN, "Rows without scores as scoring began."),
        Metric("sf_ray_run_rows_left", "gauge", _OF_RUN, "Those of them that are still to score."),
        Metric("sf_ray_run_units", "gauge", _OF_RUN, "Units without scores as scoring began."),
        Metric("sf_ray_run_units_left", "gauge", _OF_RUN, "Those of them that are still to score."),
    )
}


def count_retries(what: Literal["scoring", "tasks"], number: int = 1) -> None:
    """Counts work that is begun again."""
    instrument(METRICS["sf_ray_retries"]).inc(number, tags={"run_id": run_id(), "what": what})


def instrument(metric: Metric) -> Any:
    """Ray's object that holds the values of a metric in this process."""
    kinds = {"counter": ray_metrics.Counter, "gauge": ray_metrics.Gauge}
    return kinds[metric.kind](metric.name, description=metric.help, tag_keys=metric.tags)
