"""Embeddings -> cells in which rows are compared: near rows share one, also across its border.

Rows go to the cell of the nearest centre. Of two near rows that a border parts, at least one lies
close to it, and goes to the cell behind it too. For rows x and y of norm 1 whose cosine is at least
t, |x - y| <= sqrt(2 (1 - t)). Let x lie in the cell of centre a and y in that of b. Together they
are at most |x - y| |a - b| from being as near to the other centre:

    x.(a - b) + y.(b - a) = (x - y).(a - b) <= sqrt(2 (1 - t)) |a - b|

so for one of them it is at most half of that, sqrt((1 - t) / 2) |a - b|. With all rows up to there
every near pair shares a cell. A row has a bounded number of cells all the same, because where
clusters lie close together it would have very many; what that loses is measured in every run.

Plain arrays: does not know where embeddings lie.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.diversity.embedding_set import Embeddings16
from sf_ray.selection.diversity.facility_location import Embeddings
from sf_ray.selection.near.greedy import (
    Flags,
    Indices,
    Near,
    State,
    Verdicts,
    better,
    by_rank,
    judge,
)
from sf_ray.selection.score_range import Positions

# The most cells of a row. Of planted near copies among 400,000 rows in 391 cells, 1 finds 0.890, 2
# find 0.987, 3 0.9986, 4 0.9998 and 5 all; rows are then in 1, 1.7, 2.2, 2.8 and 3.2 cells.
MOST_CELLS = 4
# By how much a cosine may come out too low: the sum of a few hundred products, in single precision.
ROUNDING = 1e-6
# Rows that are compared at once, with the centres or with sampled rows.
_BLOCK = 4096


class EmbeddedRows(NamedTuple):
    """Some rows that may be kept.

    Attributes:
        positions: [n]
        values: [n] what rows are ranked by.
        embeddings: [n, d]
    """

    positions: Positions
    values: NDArray[np.float64]
    embeddings: Embeddings16

    def take(self, which: Flags | Indices) -> "EmbeddedRows":
        """Some of the rows: by a mask [n], or by their indices."""
        return EmbeddedRows(self.positions[which], self.values[which], self.embeddings[which])

    @classmethod
    def joined(cls, each: Sequence["EmbeddedRows"]) -> "EmbeddedRows":
        """The rows of several, one after the other; those without rows have embeddings [0, 0]."""
        some = [rows for rows in each if len(rows.positions)]
        if not some:
            return cls(np.empty(0, np.int64), np.empty(0), np.empty((0, 0), np.float16))
        return cls(*map(np.concatenate, zip(*some, strict=True)))


def of_norm_1(embeddings: NDArray[np.floating]) -> Embeddings:
    """[n, d] embeddings in any precision -> of norm 1 in single precision; those of norm 0 stay.

    Half precision leaves the norms off by up to 0.0005, and the cosine of equal rows below 1.
    """
    single = embeddings.astype(np.float32)
    norms = np.linalg.norm(single, axis=1, keepdims=True)
    single /= np.where(norms > 0, norms, np.float32(1))
    return single


def cells_of(
    embeddings: Embeddings, centres: Embeddings, threshold: float, most: int = MOST_CELLS
) -> Indices:
    """[n, d] rows of norm 1, [c, d] centres -> [n, most] the cells of each row, the nearest first.

    Args:
        embeddings: The rows.
        centres: The centres.
        threshold: The least cosine of near rows.
        most: Of more cells within reach, a row goes to the nearest.

    Returns:
        -1 where a row has no more cells.
    """
    most = min(most, len(centres))
    cells = np.full((len(embeddings), most), -1, np.int64)
    if len(embeddings):
        apart = _distances(centres)
    for start in range(0, len(embeddings), _BLOCK):
        rows = slice(start, start + _BLOCK)
        cosines = embeddings[rows] @ centres.T
        nearest = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        found = np.take_along_axis(cosines, nearest, axis=1)
        order = np.lexsort((nearest, -found), axis=1)  # ties: the first centre
        nearest = np.take_along_axis(nearest, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)
        reach = math.sqrt((1 - threshold) / 2) * apart[nearest[:, :1], nearest]
        cells[rows] = np.where(found[:, :1] - found <= reach + ROUNDING, nearest, -1)
    return cells


def near_by_cosine(embeddings: Embeddings, threshold: float) -> Near:
    """Which rows are near: those whose cosine is at least the threshold.

    Args:
        embeddings: [n, d] of norm 1, or of norm 0 for rows that are near to none.
        threshold: The least cosine.
    """

    def near(rows: Indices, others: Indices) -> Flags:
        flags: Flags = embeddings[rows] @ embeddings[others].T >= threshold - ROUNDING
        return flags

    return near


def judge_cells(rows: EmbeddedRows, cells: Indices, threshold: float, state: State) -> Verdicts:
    """What the cells of some rows say of those that are open.

    Args:
        rows: [n] A row that is in several cells is there several times.
        cells: [n] the cell that each row is compared in.
        threshold: The least cosine of near rows.
        state: What is known of all rows.
    """
    verdicts = []
    for cell in np.unique(cells):
        of_cell = rows.take(cells == cell)
        ranked = of_cell.take(by_rank(of_cell.values, of_cell.positions))
        near = near_by_cosine(of_norm_1(ranked.embeddings), threshold)
        verdicts.append(judge(near, ranked.positions, state))
    return Verdicts.joined(verdicts)


def near_a_better_one(asked: EmbeddedRows, rows: EmbeddedRows, threshold: float) -> Flags:
    """[asked] whether rows are near at least one better row of some rows: pair by pair."""
    is_near = np.zeros(len(asked.positions), bool)
    if not len(is_near):
        return is_near
    embeddings = of_norm_1(asked.embeddings)
    for start in range(0, len(rows.positions), _BLOCK):
        some = rows.take(np.arange(start, min(start + _BLOCK, len(rows.positions))))
        cosines = embeddings @ of_norm_1(some.embeddings).T
        is_better = better(some.values, some.positions, asked.values, asked.positions)
        is_near |= ((cosines >= threshold - ROUNDING) & is_better).any(axis=1)
    return is_near


def _distances(centres: Embeddings) -> Embeddings:
    """[c, c] how far centres lie apart."""
    products = centres @ centres.T
    squares = np.diag(products)
    distances: Embeddings = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))
    return distances
