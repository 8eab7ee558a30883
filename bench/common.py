"""Helpers that several benches use: rows to measure on, times, figures, comparisons of scores."""

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.formats import resolve_format
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.encoding.encoder import Encoder


def load_rows(corpus: str | None, rows: int) -> pa.Table:
    """The first rows of a local corpus of Parquet shards, or of the demo's.

    A corpus that has fewer is repeated. Each copy puts its number before every text: a text that
    began like the one that it copies would share its prefix, which no real corpus of that size
    would, and an engine that computes shared prefixes once would seem faster than it is.
    """
    with tempfile.TemporaryDirectory() as folder:
        if corpus is None:
            # Here, because it imports Ray: an engine alone is measured without it.
            from sf_ray.commands.demo import write_corpus

            corpus = f"{folder}/corpus"
            write_corpus(Path(corpus))
        table = ds.dataset(sorted(Path(corpus).rglob("*.parquet"))).head(rows)
    if not table.num_rows:
        raise SystemExit(f"{corpus} has no rows in Parquet shards")
    copies = -(-rows // table.num_rows)
    return pa.concat_tables(_renumbered(table, copy) for copy in range(copies)).slice(0, rows)


def _renumbered(table: pa.Table, copy: int) -> pa.Table:
    """A table with the number of a copy before each text, except in copy 0 and empty texts."""
    if copy == 0:
        return table
    for name in resolve_format(table.column_names).top_columns:
        column = table[name]
        if not pa.types.is_string(column.type):
            raise SystemExit(f"column {name} is {column.type}: only columns of text are repeated")
        numbered = pc.binary_join_element_wise(pa.scalar(str(copy)), column, " ")
        column = pc.if_else(pc.equal(pc.utf8_length(column), 0), column, numbered)
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def load_examples(corpus: str | None, rows: int) -> list[Example]:
    """Examples of the rows of `load_rows`; bad rows are left out."""
    table = load_rows(corpus, rows)
    row_format = resolve_format(table.column_names)
    rendered = [row_format.render(row) for row in table.to_pylist()]
    return [example for example in rendered if isinstance(example, Example)]


def encode(encoder: Encoder, examples: Sequence[Example | Problem]) -> pa.Table:
    """The encoded rows of examples, as they travel to the engine."""
    return encoded_table(encoder.encode(examples))


def median_s(repeat: int, measured: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median wall time of each call; they take turns, so that a busy minute slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(repeat):
        for name, call in measured.items():
            start = perf_counter()
            call()
            times[name].append(perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def record(path: str | None, figures: dict[str, float | str]) -> None:
    """Appends figures to a file of JSON lines, where there is one, at once."""
    if path is not None:
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(
                json.dumps({"name": name, "value": value}) + "\n" for name, value in figures.items()
            )


def relative_difference(values: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Largest and median |value / truth - 1| over the rows in which both are finite."""
    difference = np.abs(values / truth - 1)
    return float(np.nanmax(difference)), float(np.nanmedian(difference))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation over the rows in which both are finite."""
    both = np.isfinite(a) & np.isfinite(b)
    ranks = [np.argsort(np.argsort(values[both])) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def overlap_of_best(values: np.ndarray, truth: np.ndarray, share: float) -> float:
    """Share of the best rows by `truth` (IFD below 1) that are among the best by `values` too."""

    def best(ifd: np.ndarray) -> set[int]:
        order = np.argsort(-np.where(ifd < 1, ifd, -np.inf), kind="stable")
        return set(order[: int(len(ifd) * share)].tolist())

    return len(best(values) & best(truth)) / max(1, len(best(truth)))
