"""The scorers of `bench/engine.py`: what each scores, and how."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from others import by_passes, vllm_scorer

from sf_ray.engine.batching import TokenBudgetBatches
from sf_ray.engine.engine import Engine
from sf_ray.engine.model_files import Model
from sf_ray.engine.pending import one_ahead
from sf_ray.engine.sequences import TokenSequences

# On CUDA: rows, rows of a unit, and the most rows that a slow way scores.
CUDA_ROWS, CUDA_UNIT_ROWS = 8192, 2048
CUDA_MOST_ROWS = {"naive": 48, "batched": 256, "vllm": 1024, "float32": 1024}


@dataclass(frozen=True)
class Sequences:
    """What all scorers score.

    Attributes:
        rows: Number of rows that have a score.
        encoded: Their token ids.
        pool: Two sequences of each row: conditioned, then direct.
    """

    rows: int
    encoded: pa.Table
    pool: TokenSequences

    def first(self, rows: int) -> "Sequences":
        """The first of the rows."""
        if rows >= self.rows:
            return self
        return Sequences(rows, self.encoded.slice(0, rows), self.pool.take(np.arange(2 * rows)))

    def units(self, unit_rows: int) -> list[TokenSequences]:
        """The sequences of each unit."""
        edges = range(0, 2 * self.rows, 2 * unit_rows)
        every = np.arange(2 * self.rows)
        return [self.pool.take(every[edge : edge + 2 * unit_rows]) for edge in edges]

    @property
    def tokens(self) -> int:
        """Without the first of each sequence, which has no loss."""
        return int((self.pool.lengths - 1).sum())


@dataclass
class Scorer:
    """A way to score, and what is measured of it in each of its turns.

    Attributes:
        sequences: What it scores.
        score: Computes the losses of all of them.
        dtype: Type of its matrix products.
        engine: The engine, if it is one.
        unit_rows: Rows of the engine's units.
        repeat: Number of turns.
        ifd: Scores of the last turn.
        peak_bytes: On CUDA, the most memory beside what was there before.
    """

    sequences: Sequences
    score: Callable[[], np.ndarray]
    dtype: str
    repeat: int
    engine: Engine | None = None
    unit_rows: int = 0
    seconds: list[float] = field(default_factory=list)
    of_peak: list[float] = field(default_factory=list)
    of_square: list[float] = field(default_factory=list)
    of_products: list[float] = field(default_factory=list)
    ifd: np.ndarray = field(default_factory=lambda: np.empty(0))
    peak_bytes: int = 0

    @property
    def rows_per_s(self) -> float:
        return self.sequences.rows / median(self.seconds)

    @property
    def saved_share(self) -> float:
        """Share of the tokens that the engine does not compute again."""
        assert self.engine is not None
        units = self.sequences.units(self.unit_rows)
        return 1 - sum(self.engine.work(unit).tokens for unit in units) / self.sequences.tokens

    @property
    def padding(self) -> float:
        """Tokens that padded batches feed for each token of the sequences."""
        assert self.engine is not None
        fed = 0
        for unit in self.sequences.units(self.unit_rows):
            lengths = unit.lengths - 1
            batches = TokenBudgetBatches(lengths, self.engine.token_budget)
            fed += sum(len(batch) * int(lengths[batch].max()) for batch in batches)
        return fed / self.sequences.tokens


def engine_of(options: argparse.Namespace, resolved: Model, **arguments: object) -> Engine:
    if options.as_cuda:
        arguments = {"packed": True, **arguments}
    return Engine(
        resolved.path, device=options.device, token_budget=options.token_budget, **arguments
    )


def scorers_of(
    options: argparse.Namespace, resolved: Model, model: torch.nn.Module, every: Sequences
) -> dict[str, Scorer]:
    """The scorers by name, in the order of their lines; each has scored something once."""
    dtypes, without = options.dtypes.split(","), set(options.without.split(","))
    first, scorers = dtypes[0], {}

    def add(name: str, dtype: str, score: Callable[[Sequences], np.ndarray], **more: Any) -> None:
        few = options.cuda and name not in dtypes and name in CUDA_MOST_ROWS
        sequences = every.first(CUDA_MOST_ROWS[name]) if few else every
        repeat = 1 if few else options.repeat
        scorers[name] = Scorer(sequences, partial(score, sequences), dtype, repeat, **more)

    def add_engine(name: str, unit_rows: int = options.unit_rows, **arguments: object) -> None:
        if name in without:
            return
        engine = engine_of(options, resolved, **{"dtype": first, **arguments})
        # First touch of the weights; on CUDA kernels are also compiled and chosen.
        in_units(engine, every.first(unit_rows if options.cuda else 1), unit_rows=unit_rows)
        dtype = str(arguments.get("dtype", first))
        score = partial(in_units, engine, unit_rows=unit_rows)
        add(name, dtype, score, engine=engine, unit_rows=unit_rows)

    for name, batch_rows in (("naive", 1), ("batched", 16)):
        if name not in without:
            add(
                name,
                "float32",
                lambda s, batch_rows=batch_rows: by_passes(model, s.pool, s.rows, batch_rows),
            )
    if options.cuda and "vllm" not in without:
        score = vllm_scorer(resolved.path, first, int(every.pool.lengths.max()))
        if score:
            score(every.pool, 1)
            add("vllm", first, lambda s: score(s.pool, s.rows))
        else:
            print("vllm: not installed here, so it has no line")
    if options.cuda and "float32" not in dtypes:
        add_engine("float32", dtype="float32", compile=False)
    for dtype in dtypes:
        add_engine(dtype, dtype=dtype)
    add_engine("alone", share=False)
    if options.cuda:
        # Without sharing, too: what is not packed shares prefixes by chunks, as on CPU.
        add_engine("padded", packed=False, share=False)
        add_engine("eager", compile=False)
        add_engine("one-unit", unit_rows=every.rows)
    return scorers


def in_units(engine: Engine, sequences: Sequences, *, unit_rows: int) -> np.ndarray:
    """Losses of all units; each begins before the one before it is done, as in an actor."""
    begun = one_ahead(
        sequences.units(unit_rows),
        engine.begin,
        lambda pending: pending.result(),
        is_alone=lambda unit: False,
    )
    return np.concatenate(list(begun))
