"""`sf-ray show`: a finished run or a score set, in the terminal."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.commands.locations import location_of
from sf_ray.commands.score_tally import COLUMNS, ScoreTally
from sf_ray.config.options import ShowOptions
from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.layout import Output
from sf_ray.output.report.files import read_run
from sf_ray.output.report.row_kinds import RowKind, ScoreKind, StatusKind
from sf_ray.output.report.surveyed_rows import PICKS
from sf_ray.output.report.terminal import print_manifest, print_row
from sf_ray.runtime.console import SafeConsole
from sf_ray.scoring.pieces import read_piece
from sf_ray.scoring.score_set import ScoreSet, find_score_set
from sf_ray.scoring.stored_set import stored_set_of
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def show(options: ShowOptions) -> None:
    """Prints what a run kept, or what a score set holds; with some of the rows.

    Raises:
        UsageError: An option does not fit what lies there.
        SfRayError: There is neither a finished run nor a score set, or it cannot be read.
    """
    location = location_of(options, options.place)
    output = Output(location)
    if output.manifest() is None:
        _show_scores(options, location)
    else:
        _show_run(options, output)


@dataclass(frozen=True)
class _Section:
    """Rows to show: a heading, their kind, and how many at most."""

    title: str
    kind: RowKind
    rows: int


def _show_run(options: ShowOptions, output: Output) -> None:
    manifest, summary = read_run(output)
    print_manifest(manifest, output.location)
    counts = manifest.status_counts
    if options.status is not None and not counts.get(options.status):
        occurring = ", ".join(name for name, count in counts.items() if count)
        raise UsageError(f"--status {options.status}: no row has it; rows have {occurring}")
    console = SafeConsole()
    for section in _sections(options):
        console.rule(section.title)
        rows = summary.rows_of(section.kind)
        for row in rows[: section.rows]:
            print_row(console, row)
        if not rows:
            console.print("none")


def _sections(options: ShowOptions) -> list[_Section]:
    """What the options ask to show of a run."""
    sections = []
    if options.top is not None:
        sections.append(_Section("highest IFD of the kept", ScoreKind.BEST, options.top))
    if options.around_cut is not None:
        sections.append(_Section("last kept", ScoreKind.LAST_KEPT, options.around_cut))
        sections.append(_Section("first left out", ScoreKind.FIRST_MISSED, options.around_cut))
    if options.status == Status.OK:
        sections.append(_Section("status ok, lowest IFD", ScoreKind.LOWEST, PICKS))
    elif options.status is not None:
        kind = StatusKind(Status(options.status))
        sections.append(_Section(f"status {options.status}", kind, PICKS))
    return sections


def _show_scores(options: ShowOptions, location: Location) -> None:
    """Prints counts and quantiles of a score set, and the places of rows; scores have no texts."""
    try:
        score_set = find_score_set(location, options.scoring_id)
    except SfRayError as error:
        raise SfRayError(
            f"{error}\n(and {location.public_uri} has no manifest.json: no finished run either)"
        ) from None
    if options.around_cut is not None:
        raise UsageError("--around-cut: scores have no cut-off; give the OUTPUT of a run")
    tally = ScoreTally(options.top or 0, options.status, PICKS)
    for piece in _read_pieces(score_set):
        tally.add(piece)
    console = SafeConsole()
    console.print(f"{score_set.pieces.public_uri}", soft_wrap=True)
    for name, value in score_set.identity.items():
        console.print(f"  {printable(name):16} {printable(value)}", soft_wrap=True)
    console.print(f"{tally.rows:,} rows in {tally.tables:,} pieces")
    for status in Status:
        if tally.statuses[status]:
            console.print(f"  {status.value:20} {tally.statuses[status]:>12,}")
    for name, quantiles in tally.quantiles.items():
        if quantiles.values:
            texts = [f"{share:.0%} {quantiles.at(share):.4g}" for share in _QUANTILES]
            console.print(f"{name:16} {'  '.join(texts)}", soft_wrap=True)
    for title, rows in _rows_of_scores(options, tally):
        console.rule(title)
        for row in rows.to_pylist():
            place = f"row {row['row']:,} of {printable(row['shard'])}"
            ifd = row["status"] if row["ifd"] is None else f"IFD {row['ifd']:.6f}"
            console.print(f"{ifd}  {place}", soft_wrap=True)


def _rows_of_scores(options: ShowOptions, tally: ScoreTally) -> Iterator[tuple[str, pa.Table]]:
    """What the options ask to show of the scores: headings and rows."""
    if options.top is not None:
        yield "highest IFD below 1", tally.best
    if options.status is not None:
        yield f"status {options.status}", tally.with_status


def _read_pieces(score_set: ScoreSet) -> Iterator[pa.Table]:
    return map_requests(
        score_set.pieces,
        lambda place: read_piece(score_set.pieces.join(place[0]), COLUMNS),
        stored_set_of(score_set).places(),
    )
