"""What a run leaves behind, as the command line prints it. Knows neither Ray nor files."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from sf_ray.corpus.planning import SkippedShard
from sf_ray.output.commits.commit import Committed
from sf_ray.output.manifest import Diversity, GroupResult, LastKept, Manifest, SelectionResult
from sf_ray.output.manifest_scores import Scores
from sf_ray.output.report.left_out import left_out_lines
from sf_ray.output.report.summary import ShownRow
from sf_ray.runtime.console import SafeConsole
from sf_ray.runtime.log import duration
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable, printable_lines

# More shards, groups or values than these are counted instead of shown.
_SKIPPED_SHOWN = 5
_GROUPS_SHOWN = 12
_VALUES_SHOWN = 5
# Characters of a line, of which a name may be a part.
_LINE = 2000


def print_scores_summary(
    pieces: Location, rows: int, units: int, skipped: Sequence[SkippedShard]
) -> None:
    """Prints what `sf-ray score` leaves behind."""
    console = SafeConsole()
    for shard in skipped:
        _print_line(console, f"skipped  {shard.relative}: {shard.reason}")
    _print_line(console, f"{rows:,} rows have scores, in {units:,} pieces: {pieces.public_uri}")


def print_row(console: SafeConsole, row: ShownRow) -> None:
    """Prints a row: its IFD or status, its place, and its texts."""
    scores = row.scores
    head = f"IFD {scores['ifd']:.6f}" if "ifd" in scores else row.status
    kept = ", kept" if row.is_kept else ""
    place = f"row {row.row:,} of {printable(row.shard)}"
    console.print(f"{printable(head)}  {place}{kept}", soft_wrap=True, style="bold")
    if row.reason:
        console.print(printable_lines(row.reason))
    for text in row.texts:
        console.print(f"[{printable(text.name)}]", style="dim")
        more = f" ... and {text.omitted:,} more characters" if text.omitted else ""
        console.print(printable_lines(text.text) + more)
    console.print()


def print_manifest(manifest: Manifest, output: Location) -> None:
    """Prints rows by status, the cut-offs, how many rows are kept, and where the files lie.

    Args:
        manifest: Of a finished run.
        output: OUTPUT of the run, as it is reached now.
    """
    console = SafeConsole()
    selection = manifest.selection
    console.print(_counts(manifest))
    if selection.cutoff:
        last = selection.cutoff
        value = _cutoff_as_text(last)
        _print_line(
            console, f"cut-off  {selection.ranked_by} {value} (row {last.row} of {last.shard})"
        )
    if selection.quota is not None and selection.groups is not None:
        column = " and ".join(selection.quota)  # of which there is one
        _print_groups(console, column, selection.groups)
    elif note := _shortage(selection):
        _print_line(console, f"note     {note}")
    if (s_ifd := selection.s_ifd) and s_ifd.rows_without:
        _print_line(
            console,
            f"note     {s_ifd.rows_without:,} rows have no S-IFD and are not ranked: none of their "
            f"tokens differs by {s_ifd.threshold_nats:.6g} nats",
        )
    for line in left_out_lines(selection):
        _print_line(console, line)
    if manifest.scores.exact:
        _print_line(console, _exact_as_text(manifest.scores, manifest.input.rows))
    if selection.diversity:
        _print_line(console, _diversity_as_text(selection.diversity))
    skipped = manifest.input.skipped_shards
    for shard in skipped[:_SKIPPED_SHOWN]:
        _print_line(console, f"skipped  {shard.path}: {shard.reason}")
    if len(skipped) > _SKIPPED_SHOWN:
        more = len(skipped) - _SKIPPED_SHOWN
        _print_line(console, f"skipped  {more} more shards; see the manifest")
    _print_places(console, manifest, output.public_uri.rstrip("/"))


def print_committed(committed: Committed) -> None:
    """Prints where the kept rows were committed, by this command or an earlier one."""
    when = "" if committed.is_new else ", by an earlier run"
    rows = f"{committed.rows:,} rows" if committed.rows else "its rows"
    _print_line(SafeConsole(), f"committed  {committed.name}, {committed.version} ({rows}{when})")


def _print_places(console: SafeConsole, manifest: Manifest, where: str) -> None:
    """Prints where the files of a run lie, and how long its stages took."""
    scores, export = manifest.scores, manifest.output.export
    if export and export.left_out_rows:
        _print_line(
            console,
            f"note     {export.left_out_rows:,} kept rows are not exported, only in data: "
            f"{export.name} has no form for them",
        )
    for name, value in (
        ("data", f"{where}/data"),
        *([("export", f"{where}/export/{export.name}")] if export else []),
        ("scores", scores.pieces),
        ("report", f"{where}/report.html"),
        ("manifest", f"{where}/manifest.json"),
        ("time", ", ".join(f"{k} {duration(v)}" for k, v in manifest.wall_s.items())),
    ):
        _print_line(console, f"{name:8} {value}")


def _counts(manifest: Manifest) -> Table:
    """From the rows of the corpus down to those that are kept."""
    selection, rows = manifest.selection, manifest.input.rows
    table = Table(show_header=True, box=None, pad_edge=False)
    table.add_column("rows")
    table.add_column("", justify="right")
    table.add_column("", justify="right")

    def line(name: str, count: int, style: str | None = None) -> None:
        table.add_row(name, f"{count:,}", f"{count / rows:.1%}" if rows else "", style=style)

    line("in the corpus", rows)
    for status, count in manifest.status_counts.items():
        if count:
            line(f"  {printable(status)}", count)
    dropped = selection.dropped_duplicates
    near = selection.near_duplicates
    excluded = selection.excluded_rows or selection.overlapping_rows
    within = selection.eligible_rows + selection.ineligible_copies
    line(f"ok, with {_bounds_as_text(selection)}" + " and not excluded" * bool(excluded), within)
    if dropped is not None:
        line("  of them copies of better rows", dropped)
    if near is not None:
        line("  of them near copies of better rows", near.dropped_rows)
    if selection.diversity:
        line(f"of the best {selection.ranked_by}", selection.rows_within_cutoff)
    line("kept", selection.kept_rows, style="bold")
    return table


def _shortage(selection: SelectionResult) -> str:
    """Why fewer rows are kept than a user may expect; "" where as many are kept as asked for."""
    if selection.rows_within_cutoff < selection.wanted_rows:
        looked_for = (selection.dropped_duplicates, selection.near_duplicates)
        copies = "" if looked_for == (None, None) else " and are no copies"
        return (
            f"{selection.wanted_rows:,} rows were asked for; no more have "
            f"{_bounds_as_text(selection)}{copies}"
        )
    if not selection.rows_within_cutoff:
        return "the fraction comes to less than one row: nothing is kept"
    return ""


def _print_groups(console: SafeConsole, column: str, groups: Mapping[str, GroupResult]) -> None:
    """Prints a line for each of the largest groups, and notes on groups with too few rows."""
    largest_first = sorted(groups.items(), key=lambda item: (-item[1].kept, -item[1].rows, item[0]))
    table = Table(show_header=True, box=None, pad_edge=False)
    table.add_column(Text(printable(column)), overflow="fold")
    for name in ("asked", "rows", "eligible", "wanted", "kept", "cut-off"):
        table.add_column(name, justify="right")
    for value, group in largest_first[:_GROUPS_SHOWN]:
        table.add_row(
            Text(printable(value)),
            "" if group.asked is None else str(group.asked),
            *(f"{n:,}" for n in (group.rows, group.eligible, group.wanted, group.kept)),
            _cutoff_as_text(group.cutoff) if group.cutoff else "",
        )
    console.print(table)
    if len(groups) > _GROUPS_SHOWN:
        console.print(f"and {len(groups) - _GROUPS_SHOWN:,} more values; see the manifest")
    absent = [value for value, group in largest_first if not group.rows]
    short = [value for value, group in largest_first if group.rows and group.kept < group.wanted]
    for values, what in (
        (absent, "do not occur in the corpus"),
        (short, "have fewer eligible rows than were asked for: all of those are kept"),
    ):
        if values:
            shown = ", ".join(f"'{printable(value)}'" for value in values[:_VALUES_SHOWN])
            more = len(values) - _VALUES_SHOWN
            shown += f" and {more:,} more" if more > 0 else ""
            _print_line(console, f"note     values of {column} that {what}: {shown}")


def _diversity_as_text(diversity: Diversity) -> str:
    """How well the chosen rows stand for the rows that they were chosen from."""
    if diversity.mean_similarity is None or diversity.objective is None:
        return (
            f"note     no more than {diversity.of_rows:,} rows are left of the IFD cut for "
            "--diversify-to: all of them are kept"
        )
    how, at_least = "exact greedy", ""
    if not diversity.is_exact:
        how = f"by parts, {diversity.ratio_to_exact:.2%} of exact greedy on a sample"
        at_least = "at least "
    return (
        "variety  a row and the kept one most like it have on average a cosine of "
        f"{at_least}{diversity.mean_similarity:.3f} "
        f"(facility location {at_least}{diversity.objective:,.1f}, {how})"
    )


def _exact_as_text(scores: Scores, rows: int) -> str:
    """What `--exact` did about the errors of the fast type."""
    exact = scores.exact
    assert exact, "asked for only where it was done"
    part = f" ({exact.rescored_rows / rows:.1%})" if rows else ""
    return (
        f"exact    {exact.rescored_rows:,} rows{part} scored again in "
        f"{exact.dtype}; {scores.identity.dtype} is off by {exact.largest_error:.2%} of IFD at "
        f"most, on {exact.sampled_rows:,} sampled rows"
    )


def _cutoff_as_text(last: LastKept) -> str:
    return f"{last.value:.6g}" if last.ifd is None else f"{last.ifd:.6f}"


def _bounds_as_text(selection: SelectionResult) -> str:
    low, high = selection.min_ifd, selection.max_ifd
    if high is None:
        texts = [f"an IFD from {low:g} on"] if low else ["any IFD"]
    else:
        texts = [f"IFD below {high:g}" if not low else f"an IFD from {low:g} to {high:g}"]
    for what, least, most in (
        ("prompt", selection.min_prompt_tokens, selection.max_prompt_tokens),
        ("answer", selection.min_answer_tokens, selection.max_answer_tokens),
    ):
        if least is not None and most is not None:
            texts.append(f"{least:,} to {most:,} {what} tokens")
        elif least is not None:
            texts.append(f"{least:,} {what} tokens or more")
        elif most is not None:
            texts.append(f"{most:,} {what} tokens or fewer")
    return ", ".join(texts)


def _print_line(console: SafeConsole, text: str) -> None:
    console.print(printable(text, most=_LINE), soft_wrap=True)
