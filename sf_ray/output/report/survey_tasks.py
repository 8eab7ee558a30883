"""Score pieces -> the survey of a corpus, and the rows that are worth a look, over Ray tasks."""

import bisect
import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.examples import Example
from sf_ray.corpus.formats import Format, Row
from sf_ray.corpus.rows import BadLine, read_units, rows_of
from sf_ray.corpus.units import Place, group_reads
from sf_ray.output.report.summary import ShownRow, ShownText, Summary
from sf_ray.output.report.survey import (
    MOST_GROUPS,
    GroupCounts,
    Picks,
    Survey,
    SurveyedRows,
    groups_of,
    survey_of,
    total,
)
from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.pieces import read_tables
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import chunks_of
from sf_ray.selection.group_column import GroupColumn
from sf_ray.selection.selection import Selection
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

_SCORES = ("loss_direct", "loss_conditioned", "ppl_direct", "ppl_conditioned", "ifd")
_TOKENS = ("prompt_tokens", "answer_tokens")
_FLOATS = ("ppl_direct", "ppl_conditioned", "ifd")
# Units of which one task reads rows: each costs less than a task.
_UNITS_A_TASK = 8


@dataclass(frozen=True)
class _Part:
    """What one task surveys: units, of which copies do not count, and of which others are not kept.

    Attributes:
        eligible: Without copies.
        kept: The same units, also without what diversity left out.
    """

    eligible: Chunk
    kept: Chunk


@dataclass(frozen=True)
class _PickedRow:
    """A row of a shard to read, and why."""

    row: int
    is_kept: bool
    kinds: tuple[str, ...]


def summarise(selection: Selection, row_format: Format, column: GroupColumn | None) -> Summary:
    """Surveys a corpus and reads some of its rows.

    Args:
        selection: The corpus, and which of its rows are kept.
        row_format: How the columns of a row hold an example.
        column: The column whose values the survey counts separately; None for no column.

    Raises:
        SfRayError: A score piece or a shard cannot be read.
    """
    corpus, kept, stall_s = selection.corpus, selection.kept, selection.corpus_pass.stall_s
    eligible_chunks = chunks_of(selection.units, selection.duplicates)
    parts = [
        _Part(eligible, chunk)
        for eligible, chunk in zip(eligible_chunks, selection.chunks(), strict=True)
    ]
    task = functools.partial(_survey, corpus.location, kept, column)
    survey = total(parallel_map(task, parts, stall_s), column is not None)
    rows = _read_rows(selection, row_format, survey.picks)
    name = ".".join(column.path) if column else ""
    return Summary(survey, name, tuple(sorted(rows, key=lambda row: (row.shard, row.row))))


def _survey(corpus: Location, kept: Kept, column: GroupColumn | None, part: _Part) -> Survey:
    places, eligible = part.eligible.places, kept.eligible
    names = ("status", *_TOKENS, *_FLOATS, "truncated")
    table = pa.concat_tables(list(read_tables(eligible.scores, places, names)))
    ifd = _floats(table["ifd"])
    tokens = {name: table[name].fill_null(-1).to_numpy().astype(np.int64) for name in _TOKENS}
    within = eligible.bounds.holds(ifd)
    for bound in eligible.bounds.tokens:
        within &= bound.holds(tokens[bound.column])
    within &= ~_flags(part.eligible)
    codes = eligible.grouping.codes(places) if eligible.grouping else None
    positions = part.eligible.positions
    among = np.where(within, ifd, np.nan)
    keeps = kept.cutoffs.keeps(among, positions, codes) & ~_flags(part.kept)
    cutoffs = np.array([np.nan if one is None else one.ifd for one in kept.cutoffs.of])
    rows = SurveyedRows(
        positions,
        table["status"].to_numpy(),
        tokens["prompt_tokens"],
        tokens["answer_tokens"],
        _floats(table["ppl_direct"]),
        _floats(table["ppl_conditioned"]),
        ifd,
        within,
        keeps,
        cutoffs[np.zeros(len(positions), np.int64) if codes is None else codes],
    )
    groups = None if column is None else _groups(corpus, places, column, rows)
    return survey_of(rows, int(table["truncated"].to_numpy().sum()), groups)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.to_numpy().astype(np.float64, copy=False)
    return values


def _flags(chunk: Chunk) -> NDArray[np.bool_]:
    """[rows] those that the chunk drops."""
    if chunk.dropped is None:
        return np.zeros(chunk.stop - chunk.start, np.bool_)
    return chunk.dropped.flags(chunk.start, chunk.stop)


def _groups(
    corpus: Location, places: Sequence[Place], column: GroupColumn, rows: SurveyedRows
) -> dict[str, GroupCounts] | None:
    found: dict[str, GroupCounts] = {}
    at = 0
    for values, which in column.read(corpus, places):
        here = slice(at, at + len(which))
        at += len(which)
        for value, group in groups_of(values, which, rows.ok[here], rows.kept[here]).items():
            found[value] = found[value] + group if value in found else group
        if len(found) > MOST_GROUPS:
            return None
    return found


def _read_rows(
    selection: Selection, row_format: Format, picks: Mapping[str, Picks]
) -> Iterator[ShownRow]:
    """The picked rows, in no order."""
    kinds: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for kind, picked in picks.items():
        for place in zip(picked.positions.tolist(), picked.kept.tolist(), strict=True):
            kinds[place].append(kind)
    wanted: dict[Place, list[_PickedRow]] = defaultdict(list)
    for (position, is_kept), its_kinds in kinds.items():
        units = selection.units
        at = bisect.bisect_right(units, position, key=lambda one: one[0].position) - 1
        shard, shard_units = units[at]
        row = position - shard.position
        unit = shard_units[bisect.bisect_right(shard_units, row, key=lambda one: one.start) - 1]
        wanted[shard, unit].append(_PickedRow(row, is_kept, tuple(its_kinds)))
    places = sorted(wanted.items(), key=lambda one: one[0][0].position + one[0][1].start)
    tasks = [places[at : at + _UNITS_A_TASK] for at in range(0, len(places), _UNITS_A_TASK)]
    scores = selection.kept.eligible.scores
    task = functools.partial(_rows_of_units, selection.corpus.location, scores, row_format)
    for found in parallel_map(task, tasks, selection.corpus_pass.stall_s):
        yield from found


def _rows_of_units(
    corpus: Location,
    scores: Location,
    row_format: Format,
    wanted: Sequence[tuple[Place, Sequence[_PickedRow]]],
) -> list[ShownRow]:
    read = functools.partial(_rows_of_unit, corpus, scores, row_format)
    return [row for rows in map_requests(corpus, read, wanted) for row in rows]


def _rows_of_unit(
    corpus: Location,
    scores: Location,
    row_format: Format,
    wanted: tuple[Place, Sequence[_PickedRow]],
) -> list[ShownRow]:
    (shard, unit), of_unit = wanted
    names = ["status", *_TOKENS, *_SCORES]
    (table,) = read_tables(scores, [(shard, unit)], names)
    (plan,) = group_reads(shard, [unit])
    (rows,) = read_units(corpus, plan, row_format.top_columns)
    return [
        _shown(
            row_format,
            next(rows_of(rows.slice(one.row - unit.start, 1))),
            table.slice(one.row - unit.start, 1).to_pylist()[0],
            shard.file.relative,
            one,
        )
        for one in of_unit
    ]


def _shown(
    row_format: Format,
    row: Row | BadLine,
    score: Mapping[str, object],
    shard: str,
    wanted: _PickedRow,
) -> ShownRow:
    reason = ""
    if isinstance(row, BadLine):
        texts, reason = [], row.reason
    elif isinstance(made := row_format.render(row), Example):
        texts = [ShownText("tools", made.tools)] if made.tools else []
        texts += [ShownText(message.role, message.text) for message in made.messages]
    else:
        reason = made.reason
        texts = [ShownText(name, _as_text(value)) for name, value in row.items()]
    return ShownRow.of(
        texts,
        kinds=wanted.kinds,
        shard=shard,
        row=wanted.row,
        status=str(score["status"]),
        reason=reason,
        is_kept=wanted.is_kept,
        scores={
            name: value
            for name in (*_TOKENS, *_SCORES)
            if isinstance(value := score[name], (int, float))
        },
    )


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
