"""A run or a score set, in the terminal."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from sf_ray.config.options import ShowOptions
from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.layout import Output
from sf_ray.output.report.files import read_run
from sf_ray.output.report.survey import PICKS
from sf_ray.output.report.terminal import as_terminal_text, print_manifest, print_row
from sf_ray.scoring.pieces import read_piece
from sf_ray.scoring.score_set import ScoreSet, find_score_set
from sf_ray.scoring.score_table import SCORE_SCHEMA
from sf_ray.storage.files import list_files, map_requests
from sf_ray.storage.location import Location

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def show(options: ShowOptions) -> None:
    """Prints what a run kept, with rows to read; or what a score set holds."""
    location = Location(options.place, options.storage_options, options.storage_retry_s)
    output = Output(location)
    if output.manifest() is None:
        _show_scores(options, location)
        return
    manifest, summary = read_run(output)
    print_manifest(manifest, location)
    counts = manifest["status_counts"]
    if options.status is not None and not counts.get(options.status):
        there = ", ".join(name for name, count in counts.items() if count)
        raise UsageError(f"--status {options.status}: no row has it; rows have {there}")
    console = Console(highlight=False, markup=False)
    for title, kind, count in _wanted(options):
        console.rule(title)
        rows = [row for row in summary.rows if kind in row.kinds]
        rows.sort(key=lambda row: (_sign(kind) * row.scores.get("ifd", 0), row.shard, row.row))
        for row in rows[:count]:
            print_row(console, row)
        if not rows:
            console.print("none")


def _sign(kind: str) -> int:
    return -1 if kind in ("best", "first missed") else 1


def _wanted(options: ShowOptions) -> list[tuple[str, str, int]]:
    """Title, kind and number of the rows that were asked for."""
    wanted = []
    if options.top is not None:
        wanted.append(("highest IFD of the kept", "best", options.top))
    if options.around_cut is not None:
        wanted.append(("last kept", "last kept", options.around_cut))
        wanted.append(("first left out", "first missed", options.around_cut))
    if options.status == Status.OK:
        wanted.append(("status ok, lowest IFD", "lowest", PICKS))
    elif options.status is not None:
        wanted.append((f"status {options.status}", f"status {options.status}", PICKS))
    return wanted


def _show_scores(options: ShowOptions, location: Location) -> None:
    """Counts and quantiles of a score set; which rows they are of, without their texts."""
    try:
        score_set = find_score_set(location, options.scoring_id)
    except SfRayError as error:
        raise SfRayError(
            f"{error}\n(and {location.public_uri} has no manifest.json: no finished run either)"
        ) from None
    if options.around_cut is not None:
        raise UsageError("--around-cut: scores have no cut-off; give the OUTPUT of a run")
    found = [one for one in _read_pieces(score_set) if one.num_rows]
    table = pa.concat_tables(found) if found else SCORE_SCHEMA.empty_table()
    console = Console(highlight=False, markup=False)
    console.print(f"{score_set.pieces.public_uri}", soft_wrap=True)
    for name, value in score_set.identity.items():
        console.print(f"  {name:16} {value}", soft_wrap=True)
    counts = Counter(table["status"].to_pylist())
    console.print(f"{table.num_rows:,} rows in {len(found):,} pieces")
    for status in Status:
        if counts[status]:
            console.print(f"  {status.value:20} {counts[status]:>12,}")
    for name in ("ifd", "ppl_direct", "ppl_conditioned"):
        values = table[name].drop_null().to_numpy()
        if len(values):
            quantiles = zip(_QUANTILES, np.quantile(values, _QUANTILES), strict=True)
            texts = [f"{quantile:.0%} {value:.4g}" for quantile, value in quantiles]
            console.print(f"{name:16} {'  '.join(texts)}", soft_wrap=True)
    for title, rows in _rows_of_scores(options, table):
        console.rule(title)
        for row in rows.to_pylist():
            place = as_terminal_text(f"row {row['row']:,} of {row['shard']}")
            ifd = row["status"] if row["ifd"] is None else f"IFD {row['ifd']:.6f}"
            console.print(f"{ifd}  {place}", soft_wrap=True)


def _rows_of_scores(options: ShowOptions, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    if options.top is not None:
        below = table.filter(pc.less(table["ifd"], 1.0))
        order = [("ifd", "descending"), ("shard", "ascending"), ("row", "ascending")]
        yield "highest IFD below 1", below.take(pc.select_k_unstable(below, options.top, order))
    if options.status is not None:
        yield (
            f"status {options.status}",
            table.filter(pc.equal(table["status"], options.status)).slice(0, PICKS),
        )


def _read_pieces(score_set: ScoreSet) -> Iterator[pa.Table]:
    columns = ["shard", "row", "status", "ppl_direct", "ppl_conditioned", "ifd"]

    names = [file.relative for file in list_files(score_set.pieces, ".parquet") if file.size]
    return map_requests(
        score_set.pieces, lambda name: read_piece(score_set.pieces.join(name), columns), names
    )
