"""Score pieces -> the survey of a corpus, and the rows that a report shows, in Ray tasks.

Only the rows that are shown are read again from the corpus. Does not know how a report looks.
"""

import bisect
import functools
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.formats import Format, Row
from sf_ray.corpus.rows import BadLine, read_units, rows_of
from sf_ray.corpus.units import Place, ReadPlan, Shard, group_reads
from sf_ray.output.report.answer_lengths import AnswerLengths, LengthCounts
from sf_ray.output.report.row_kinds import RowKind
from sf_ray.output.report.summary import ShownRow, ShownText, Summary
from sf_ray.output.report.survey import (
    MOST_GROUPS,
    GroupCounts,
    Survey,
    groups_of,
    nothing,
    survey_of,
)
from sf_ray.output.report.surveyed_rows import Picks, SurveyedRows
from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.pieces import read_tables
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import chunks_of
from sf_ray.selection.group_column import GroupColumn
from sf_ray.selection.lengths import LENGTHS
from sf_ray.selection.selection import Selection
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# Columns of the score table.
_SCORES = ("loss_direct", "loss_conditioned", "ppl_direct", "ppl_conditioned", "ifd")
_TOKENS = ("prompt_tokens", "answer_tokens")
# Units of which one task reads rows: a task costs more than the reading of one unit.
_UNITS_A_TASK = 8


@dataclass(frozen=True)
class _Part:
    """What one task surveys: the same units twice.

    Attributes:
        eligible: Without duplicates.
        kept: Also without the rows that `--diversify-to` left out.
    """

    eligible: Chunk
    kept: Chunk


@dataclass(frozen=True)
class _PickedRow:
    """A row to read.

    Attributes:
        row: Its number in the shard.
        is_kept: Whether the output has it.
        kinds: Why it was picked.
    """

    row: int
    is_kept: bool
    kinds: tuple[RowKind, ...]


class _PickedOfUnit(NamedTuple):
    """The rows to read of one unit, at least one."""

    place: Place
    rows: Sequence[_PickedRow]


@dataclass(frozen=True)
class NormalisedRequest:
    """What `--by length-normalised` would be asked for, beside the rows wanted of each group.

    Attributes:
        below: It would keep rows with an IFD below this.
        keep_tokens: Tokens that the kept rows are to have; None where rows are wanted.
    """

    below: float
    keep_tokens: int | None


def summarise(
    selection: Selection,
    row_format: Format,
    column: GroupColumn | None,
    normalised: NormalisedRequest,
) -> Summary:
    """Surveys a corpus and reads some of its rows.

    Args:
        selection: The corpus, and which of its rows are kept.
        row_format: The format of the rows.
        column: The column whose values the survey counts separately; None for no column.
        normalised: What the kept rows are held against.

    Raises:
        SfRayError: A score piece or a shard cannot be read.
    """
    eligible_chunks = selection.with_known(chunks_of(selection.units, selection.ineligible))
    parts = [
        _Part(eligible, kept)
        for eligible, kept in zip(eligible_chunks, selection.chunks(), strict=True)
    ]
    corpus, kept = selection.corpus.location, selection.kept
    task = functools.partial(_survey, corpus, kept, column, normalised.below)
    survey, counts = nothing(column is not None), LengthCounts.none()
    for of_part, counts_of_part in parallel_map(task, parts, selection.corpus_pass.stall_s):
        survey, counts = survey + of_part, counts + counts_of_part
    rows = _read_rows(selection, row_format, survey.picks)
    return Summary(
        survey,
        ".".join(column.path) if column else "",
        tuple(sorted(rows, key=lambda row: (row.shard, row.row))),
        answer_lengths=_lengths(selection, counts, survey, normalised.keep_tokens),
    )


def _lengths(
    selection: Selection, counts: LengthCounts, survey: Survey, keep_tokens: int | None
) -> AnswerLengths:
    would_keep = None
    if selection.diversity is None:
        wanted = [group.wanted for group in selection.ranking.groups]
        would_keep = counts.normalised(wanted, keep_tokens)
    return AnswerLengths.of(counts, would_keep, survey.points)


def _survey(
    corpus: Location, kept: Kept, column: GroupColumn | None, below: float, part: _Part
) -> tuple[Survey, LengthCounts]:
    places, eligible = part.eligible.places, kept.eligible
    table = pa.concat_tables(eligible.scores_of(part.eligible))
    tokens = {name: table[name].fill_null(-1).to_numpy().astype(np.int64) for name in _TOKENS}
    ranked = eligible.rows_of(part.eligible, [table])
    codes = np.zeros(len(ranked.positions), np.int64) if ranked.codes is None else ranked.codes
    keeps = kept.cutoffs.keeps(ranked.values, ranked.positions, codes)
    rows = SurveyedRows(
        positions=ranked.positions,
        status=table["status"].to_numpy(),
        prompt_tokens=tokens["prompt_tokens"],
        answer_tokens=tokens["answer_tokens"],
        ppl_direct=_floats(table["ppl_direct"]),
        ppl_conditioned=_floats(table["ppl_conditioned"]),
        ifd=_floats(table["ifd"]),
        values=ranked.values,
        kept=keeps & ~_dropped(part.kept),
        cutoff=kept.cutoffs.last_values[codes],
    )
    groups = None if column is None else _groups(corpus, places, column, rows)
    survey = survey_of(rows, int(table["truncated"].to_numpy().sum()), groups)
    # Of the groups of a quota, each of which may be divided by length.
    of_quota = codes // LENGTHS if eligible.by_length else codes
    return survey, LengthCounts.of(rows, of_quota, below)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """[n]; NaN where a value is null."""
    values: NDArray[np.float64] = column.to_numpy().astype(np.float64, copy=False)
    return values


def _dropped(chunk: Chunk) -> NDArray[np.bool_]:
    """[rows] whether the chunk drops a row."""
    if chunk.dropped is None:
        return np.zeros(chunk.stop - chunk.start, np.bool_)
    return chunk.dropped.flags(chunk.start, chunk.stop)


def _groups(
    corpus: Location, places: Sequence[Place], column: GroupColumn, rows: SurveyedRows
) -> dict[str, GroupCounts] | None:
    """Rows by value of the column; None where there are too many values."""
    counts: dict[str, GroupCounts] = {}
    ok, at = rows.ok, 0
    for values, indices in column.read(corpus, places):
        unit = slice(at, at + len(indices))
        at += len(indices)
        for value, group in groups_of(values, indices, ok[unit], rows.kept[unit]).items():
            counts[value] = counts[value] + group if value in counts else group
        if len(counts) > MOST_GROUPS:
            return None
    return counts


def _read_rows(
    selection: Selection, row_format: Format, picks: Mapping[RowKind, Picks]
) -> Iterator[ShownRow]:
    """The picked rows, in no order."""
    units = _picked_of_units(selection.units, picks)
    tasks = [units[at : at + _UNITS_A_TASK] for at in range(0, len(units), _UNITS_A_TASK)]
    scores = selection.kept.eligible.scores
    task = functools.partial(_rows_of_units, selection.corpus.location, scores, row_format)
    for rows in parallel_map(task, tasks, selection.corpus_pass.stall_s):
        yield from rows


def _picked_of_units(units: ShardUnits, picks: Mapping[RowKind, Picks]) -> list[_PickedOfUnit]:
    """The picked rows by unit, in the order of the corpus; a row of several kinds is there once."""
    kinds_of_rows: dict[tuple[int, bool], list[RowKind]] = defaultdict(list)
    for kind, picked in picks.items():
        for row_key in zip(picked.positions.tolist(), picked.kept.tolist(), strict=True):
            kinds_of_rows[row_key].append(kind)
    rows_of_places: dict[Place, list[_PickedRow]] = defaultdict(list)
    for (position, is_kept), kinds in kinds_of_rows.items():
        at = bisect.bisect_right(units, position, key=lambda shard_units: shard_units[0].position)
        shard, shard_units = units[at - 1]
        row = position - shard.position
        unit = shard_units[bisect.bisect_right(shard_units, row, key=lambda unit: unit.start) - 1]
        rows_of_places[Place(shard, unit)].append(_PickedRow(row, is_kept, tuple(kinds)))
    picked_of_units = [_PickedOfUnit(place, rows) for place, rows in rows_of_places.items()]
    return sorted(
        picked_of_units, key=lambda picked: picked.place.shard.position + picked.place.unit.start
    )


def _rows_of_units(
    corpus: Location, scores: Location, row_format: Format, units: Sequence[_PickedOfUnit]
) -> list[ShownRow]:
    picked_of = {picked.place: picked.rows for picked in units}
    # Units of one row group are read together: to read one of them costs as much.
    plans = [
        (shard, plan)
        for shard, of_shard in itertools.groupby(picked_of, key=lambda place: place.shard)
        for plan in group_reads(shard, [place.unit for place in of_shard])
    ]
    read = functools.partial(_rows_of_plan, corpus, scores, row_format, picked_of)
    return [row for rows in map_requests(corpus, read, plans) for row in rows]


def _rows_of_plan(
    corpus: Location,
    scores: Location,
    row_format: Format,
    picked_of: Mapping[Place, Sequence[_PickedRow]],
    planned: tuple[Shard, ReadPlan],
) -> list[ShownRow]:
    """Reads the picked rows of some units of a shard, and their scores."""
    shard, plan = planned
    places = [Place(shard, unit) for unit in plan.units]
    tables = read_tables(scores, places, ["status", *_TOKENS, *_SCORES])
    rows_of_places = read_units(corpus, plan, row_format.top_columns)
    return [
        _shown(
            row_format,
            next(rows_of(rows.slice(row.row - place.unit.start, 1))),
            table.slice(row.row - place.unit.start, 1).to_pylist()[0],
            shard.file.relative,
            row,
        )
        for place, table, rows in zip(places, tables, rows_of_places, strict=True)
        for row in picked_of[place]
    ]


def _shown(
    row_format: Format,
    row: Row | BadLine,
    score: Mapping[str, object],
    shard: str,
    picked: _PickedRow,
) -> ShownRow:
    """A row as a report shows it: its messages, or its fields where it does not render."""
    rendered = row if isinstance(row, BadLine) else row_format.render(row)
    texts: list[ShownText] | Problem = contained(_texts, rendered, row)
    reason = "" if isinstance(rendered, Example) else rendered.reason
    if isinstance(texts, Problem):
        reason, texts = texts.reason, []
    return ShownRow.of(
        texts,
        kinds=picked.kinds,
        shard=shard,
        row=picked.row,
        status=str(score["status"]),
        reason=reason,
        is_kept=picked.is_kept,
        scores={
            name: value
            for name in (*_TOKENS, *_SCORES)
            if isinstance(value := score[name], (int, float))
        },
    )


def _texts(rendered: Example | Problem | BadLine, row: Row | BadLine) -> list[ShownText]:
    if isinstance(row, BadLine):
        return []
    if not isinstance(rendered, Example):
        return [ShownText(name, _as_text(value)) for name, value in row.items()]
    tools = [ShownText("tools", rendered.tools)] if rendered.tools else []
    return tools + [ShownText(message.role, message.text) for message in rendered.messages]


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
