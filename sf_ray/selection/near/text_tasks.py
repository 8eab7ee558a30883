"""Near copies by their texts, found in Ray tasks.

    texts --signatures--> bands --keys that occur twice--> buckets --rounds of `greedy`--> rows

Keys of bands go to parts by their value, as digests of exact copies do, so that equal ones meet.
Only rows that share a key with another row travel on with their signatures. A task holds the rows
of one chunk or of one part; the driver holds bits.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import ray

from sf_ray.runtime.tasks import parallel_map, parallel_map_stored
from sf_ray.scoring.score_set import count_units
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Eligible
from sf_ray.selection.near.greedy import Flags, State, Verdicts
from sf_ray.selection.near.near_copies import SAMPLE_ROWS, NearCopies, Sampled
from sf_ray.selection.near.rounds import settle_parts
from sf_ray.selection.near.signatures import (
    NUMBERS,
    ShingleIndex,
    SignedRows,
    band_keys,
    judge_buckets,
    shingles_of,
    signatures_of,
)
from sf_ray.selection.near.words import Hashes
from sf_ray.selection.score_range import Positions
from sf_ray.selection.selection import Selection
from sf_ray.selection.texts import CorpusTexts

# Units of one task that reads texts, unless there would be too many tasks: Ray keeps what a task
# sends to a part in the driver's memory if it is below 100 KB, and so it is larger.
_UNITS_A_TASK, _MOST_TASKS = 16, 1000
# Bytes of a part: keys and positions, or these with values and signatures.
_PART_BYTES, _KEY_BYTES, _ROW_BYTES = 128 << 20, 16, 24 + 4 * NUMBERS
# Units that the sample is taken from.
_SAMPLED_UNITS = 64


@dataclass(frozen=True)
class EligibleTexts:
    """Reads the eligible rows of a chunk, and their texts.

    Attributes:
        eligible: Reads which rows may be kept.
        texts: Reads the texts of the corpus.
        threshold: The least Jaccard index of near rows.
    """

    eligible: Eligible
    texts: CorpusTexts
    threshold: float


class _Keys(NamedTuple):
    """Keys of the bands of some rows: [n] each, and [n] the position of its row."""

    keys: Hashes
    positions: Positions


class _Bucketed(NamedTuple):
    """Rows of some buckets, and [n] the key of the bucket; a row is there for each of its keys."""

    rows: SignedRows
    keys: Hashes


def find_near_by_text(selection: Selection, read: EligibleTexts) -> NearCopies:
    """The eligible rows that are dropped because a better row is near them.

    Args:
        selection: All eligible rows.
        read: Reads these, and their texts.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: Scores or texts cannot be read.
    """
    corpus_pass, rows = selection.corpus_pass, selection.corpus.rows
    index = _sampled(selection, read)
    bands = band_keys(np.empty((0, NUMBERS), np.uint32), read.threshold).shape[1]
    parts = _parts(selection.rows * bands * _KEY_BYTES)
    sign = functools.partial(_sign, read, parts, ray.put(index))
    chunks = selection.chunks(units_a_task(count_units(selection.units)))
    results = list(corpus_pass.over_stored(sign, chunks, parts + 1))
    keys_of_parts = [[result.refs[at] for result in results] for at in range(parts)]
    suspects = Bitmap.empty(rows)
    equal = Bitmap.empty(rows)
    is_near = np.zeros(len(index.positions), bool)
    for result in results:
        equal.add(result.value.equal)
        is_near |= result.value.is_near
    for positions in parallel_map(_sharing_a_key, keys_of_parts, corpus_pass.stall_s):
        suspects.add(positions)
    parts = _parts(len(suspects) * bands * _ROW_BYTES)
    deal = functools.partial(_deal, read.threshold, parts, ray.put(suspects))
    # References in a list, because Ray would put the values of others in their place.
    signed = [[result.refs[-1]] for result in results]
    dealt = list(parallel_map_stored(deal, signed, corpus_pass.stall_s, parts))
    buckets = [[each.refs[at] for each in dealt] for at in range(parts)]
    judge_part = functools.partial(_judge, read.threshold)
    settled = settle_parts(judge_part, buckets, rows, corpus_pass.stall_s)
    is_found = (settled.near_better | equal).contains(index.positions) & is_near
    sampled = Sampled(len(is_near), int(is_near.sum()), int(is_found.sum()))
    return NearCopies(settled.dropped | equal, selection.rows, settled.rounds, sampled)


def units_a_task(units: int) -> int:
    """How many of so many units one task looks at."""
    return max(_UNITS_A_TASK, -(-units // _MOST_TASKS))


def _parts(size: int) -> int:
    return max(1, -(-size // _PART_BYTES))


def _sampled(selection: Selection, read: EligibleTexts) -> ShingleIndex:
    """The first eligible rows of some units, which lie apart from each other."""
    chunks = selection.chunks(1)
    at = np.linspace(0, len(chunks) - 1, min(_SAMPLED_UNITS, len(chunks))).astype(np.int64)
    some = [chunks[number] for number in np.unique(at)]
    draw = functools.partial(_draw, read, -(-SAMPLE_ROWS // max(1, len(some))))
    drawn = sorted(selection.corpus_pass.over(draw, some), key=lambda of_unit: of_unit[0])
    return ShingleIndex.of(
        np.concatenate([np.empty(0, np.int64), *(positions for _, positions, _, _ in drawn)]),
        np.concatenate([np.empty(0), *(values for _, _, values, _ in drawn)]),
        [each for _, _, _, shingles in drawn for each in shingles],
    )


_Drawn = tuple[int, Positions, Any, list[Hashes]]


def _draw(read: EligibleTexts, most: int, chunk: Chunk) -> _Drawn:
    """The position of a unit, and positions, values and shingles of its first eligible rows."""
    rows = read.eligible.read(chunk)
    is_wanted = ~np.isnan(rows.values)
    is_wanted &= np.cumsum(is_wanted) <= most
    positions, shingles = [np.empty(0, np.int64)], list[Hashes]()
    for unit in read.texts.of_chunk(chunk, is_wanted):
        found, of_unit = _with_shingles(unit.positions, unit.texts)
        positions.append(found)
        shingles += of_unit
    drawn = np.concatenate(positions)
    return chunk.start, drawn, rows.values[drawn - chunk.start], shingles


def _with_shingles(positions: Positions, texts: Sequence[str]) -> tuple[Positions, list[Hashes]]:
    """The rows whose texts have a word, and their shingles."""
    shingles = [shingles_of(text) for text in texts]
    has = np.array([len(each) > 0 for each in shingles], bool)
    return positions[has], [each for each in shingles if len(each)]


class _SignedChunk(NamedTuple):
    """What the driver learns of a chunk.

    Attributes:
        is_near: [sample] whether each sampled row is near a better row of the chunk.
        equal: Positions of rows of which a better one in the chunk has the very signature.
    """

    is_near: Flags
    equal: Positions


def _sign(
    read: EligibleTexts, parts: int, index: ray.ObjectRef, chunk: Chunk
) -> tuple[_SignedChunk, list[_Keys | SignedRows]]:
    """Signs the eligible rows of a chunk; returns keys by part, and behind them the signed rows.

    Of rows with one signature only the best goes on: a part then never has more such rows than
    there are tasks, however often a text occurs.
    """
    rows, sample = read.eligible.read(chunk), ray.get(index)
    is_near = np.zeros(len(sample.positions), bool)
    signed = []
    for unit in read.texts.of_chunk(chunk, ~np.isnan(rows.values)):
        positions, shingles = _with_shingles(unit.positions, unit.texts)
        values = rows.values[positions - chunk.start]
        signed.append(SignedRows(positions, values, signatures_of(shingles)))
        is_near |= sample.near_a_better_one(positions, values, shingles, read.threshold)
    every = SignedRows.joined(signed)
    whole = every.without_equal()
    equal = np.setdiff1d(every.positions, whole.positions, assume_unique=True)
    keys = band_keys(whole.signatures, read.threshold)
    positions = np.repeat(whole.positions, keys.shape[1])
    flat = keys.reshape(-1)
    part = flat % np.uint64(parts)
    of_parts = [_Keys(flat[part == at], positions[part == at]) for at in range(parts)]
    return _SignedChunk(is_near, equal), [*of_parts, whole]


def _sharing_a_key(refs: Sequence[ray.ObjectRef]) -> Positions:
    """Positions of the rows of a part that share a key with another row."""
    each: list[_Keys] = ray.get(list(refs))
    keys = np.concatenate([np.empty(0, np.uint64), *(part.keys for part in each)])
    positions = np.concatenate([np.empty(0, np.int64), *(part.positions for part in each)])
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    shares = np.append(same, False) | np.insert(same, 0, False) if len(order) else same
    return np.unique(positions[order[shares]])


def _deal(
    threshold: float, parts: int, suspects: ray.ObjectRef, signed: Sequence[ray.ObjectRef]
) -> tuple[int, list[_Bucketed]]:
    """Deals the rows of a chunk that share a key out over the parts of their keys."""
    (rows,) = ray.get(list(signed))
    rows = rows.take(ray.get(suspects).contains(rows.positions))
    keys = band_keys(rows.signatures, threshold)
    row, flat = np.repeat(np.arange(len(keys)), keys.shape[1]), keys.reshape(-1)
    part = flat % np.uint64(parts)
    return 0, [_Bucketed(rows.take(row[part == at]), flat[part == at]) for at in range(parts)]


def _judge(threshold: float, state: State, refs: Sequence[ray.ObjectRef]) -> Verdicts:
    """What the buckets of a part say of the open rows."""
    each: list[_Bucketed] = ray.get(list(refs))
    rows = SignedRows.joined([of_task.rows for of_task in each])
    keys = np.concatenate([np.empty(0, np.uint64), *(of_task.keys for of_task in each)])
    return judge_buckets(rows, keys, threshold, state)
