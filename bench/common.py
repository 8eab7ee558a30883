"""Helpers that several benches use: rows to measure on, times, and comparisons of scores."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow.dataset as ds

from sf_ray.corpus.examples import Example
from sf_ray.corpus.formats import resolve_format


def load_examples(corpus: str | None, rows: int) -> list[Example]:
    """Examples of the first rows of a local corpus, or of the demo's; bad rows are left out."""
    with tempfile.TemporaryDirectory() as folder:
        if corpus is None:
            # Here, because it imports Ray: an engine alone is measured without it.
            from sf_ray.commands.demo import write_corpus

            corpus = f"{folder}/corpus"
            write_corpus(Path(corpus))
        table = ds.dataset(sorted(Path(corpus).rglob("*.parquet"))).head(rows)
    row_format = resolve_format(table.column_names)
    rendered = [row_format.render(row) for row in table.to_pylist()]
    return [example for example in rendered if isinstance(example, Example)]


def median_s(repeat: int, measured: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median wall time of each call; they take turns, so that a busy minute slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(repeat):
        for name, call in measured.items():
            start = perf_counter()
            call()
            times[name].append(perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def relative_difference(values: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Largest and median |value / truth - 1| over the rows in which both are finite."""
    difference = np.abs(values / truth - 1)
    return float(np.nanmax(difference)), float(np.nanmedian(difference))


def overlap_of_best(values: np.ndarray, truth: np.ndarray, share: float) -> float:
    """Share of the best rows by `truth` (IFD below 1) that are among the best by `values` too."""

    def best(ifd: np.ndarray) -> set[int]:
        order = np.argsort(-np.where(ifd < 1, ifd, -np.inf), kind="stable")
        return set(order[: int(len(ifd) * share)].tolist())

    return len(best(values) & best(truth)) / max(1, len(best(truth)))
