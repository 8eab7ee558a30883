"""What a run leaves behind, as the command line prints it. Knows neither Ray nor files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sf_ray.corpus.planning import SkippedShard
from sf_ray.output.report.summary import ShownRow
from sf_ray.runtime.log import duration
from sf_ray.storage.location import Location

_SKIPPED_SHOWN = 5
_GROUPS_SHOWN = 12


def print_scores_summary(
    pieces: Location, rows: int, units: int, skipped: Sequence[SkippedShard]
) -> None:
    """What `sf-ray score` leaves behind."""
    console = Console()
    for shard in skipped:
        _tell(console, f"skipped  {shard.relative}: {shard.reason}")
    _tell(console, f"{rows:,} rows have scores, in {units:,} pieces: {pieces.public_uri}")


def as_terminal_text(text: str) -> str:
    """Text of a corpus, in which nothing can steer the terminal."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


def print_row(console: Console, row: ShownRow) -> None:
    """A row: where it is, its scores, and what it says."""
    scores = row.scores
    head = f"IFD {scores['ifd']:.6f}" if "ifd" in scores else row.status
    kept = ", kept" if row.is_kept else ""
    place = as_terminal_text(f"row {row.row:,} of {row.shard}")
    console.print(f"{head}  {place}{kept}", soft_wrap=True, style="bold")
    if row.reason:
        console.print(as_terminal_text(row.reason))
    for text in row.texts:
        console.print(f"[{text.name}]", style="dim")
        more = f" ... and {text.omitted:,} more characters" if text.omitted else ""
        console.print(as_terminal_text(text.text) + more)
    console.print()


def print_manifest(manifest: dict[str, Any], output: Location) -> None:
    """Rows by status, the cut-off, what was kept, and where things lie."""
    console = Console()
    selection = manifest["selection"]
    console.print(_counts(manifest))
    cutoff = selection["cutoff"]
    if cutoff:
        _tell(
            console,
            f"cut-off  IFD {cutoff['ifd']:.6f} (row {cutoff['row']} of {cutoff['shard']})",
        )
    if selection["groups"] is not None:
        _print_groups(console, selection)
    elif note := _shortage(selection):
        _tell(console, f"note     {note}")
    if selection["diversity"]:
        _tell(console, _diversity_as_text(selection["diversity"]))
    skipped = manifest["input"]["skipped_shards"]
    for shard in skipped[:_SKIPPED_SHOWN]:
        _tell(console, f"skipped  {shard['path']}: {shard['reason']}")
    if len(skipped) > _SKIPPED_SHOWN:
        _tell(console, f"skipped  {len(skipped) - _SKIPPED_SHOWN} more shards; see the manifest")
    where = output.public_uri.rstrip("/")
    exported = manifest["output"]["export"]
    if exported and exported["left_out_rows"]:
        _tell(
            console,
            f"note     {exported['left_out_rows']:,} kept rows are not exported, only in data: "
            f"{exported['name']} has no form for them",
        )
    for name, value in (
        ("data", f"{where}/data"),
        *([("export", f"{where}/export/{exported['name']}")] if exported else []),
        ("scores", f"{manifest['scores']['uri']}/{manifest['scores']['scoring_id']}"),
        ("report", f"{where}/report.html"),
        ("manifest", f"{where}/manifest.json"),
        ("time", ", ".join(f"{k} {duration(v)}" for k, v in manifest["wall_s"].items())),
    ):
        _tell(console, f"{name:8} {value}")


def _ranked(selection: dict[str, Any]) -> int:
    """Rows that the cut-off keeps, of which diversity may leave some out."""
    diversity = selection["diversity"]
    ranked: int = diversity["of_rows"] if diversity else selection["kept_rows"]
    return ranked


def _counts(manifest: dict[str, Any]) -> Table:
    """From the rows of the corpus to those that are kept."""
    selection, rows = manifest["selection"], manifest["input"]["rows"]
    table = Table(show_header=True, box=None, pad_edge=False)
    table.add_column("rows")
    table.add_column("", justify="right")
    table.add_column("", justify="right")

    def line(name: str, count: int, style: str | None = None) -> None:
        table.add_row(name, f"{count:,}", f"{count / rows:.1%}" if rows else "", style=style)

    line("in the corpus", rows)
    for status, count in manifest["status_counts"].items():
        if count:
            line(f"  {status}", count)
    dropped = selection["dropped_duplicates"]
    line(f"ok, with {_bounds_as_text(selection)}", selection["eligible_rows"] + (dropped or 0))
    if dropped is not None:
        line("  of them copies of better rows", dropped)
    if selection["diversity"]:
        line("of the best IFD", _ranked(selection))
    line("kept", selection["kept_rows"], style="bold")
    return table


def _shortage(selection: dict[str, Any]) -> str:
    """Why fewer rows are kept than may have been expected; "" where that is not so."""
    if _ranked(selection) < selection["wanted_rows"]:
        copies = "" if selection["dropped_duplicates"] is None else " and are no copies"
        return (
            f"{selection['wanted_rows']:,} rows were asked for; no more have "
            f"{_bounds_as_text(selection)}{copies}"
        )
    if not _ranked(selection):
        return "the fraction comes to less than one row: nothing is kept"
    return ""


def _print_groups(console: Console, selection: dict[str, Any]) -> None:
    """One line for each of the largest groups, and a note where one is smaller than asked for."""
    ((column, _),) = selection["quota"].items()
    groups = sorted(
        selection["groups"].items(), key=lambda one: (-one[1]["kept"], -one[1]["rows"], one[0])
    )
    table = Table(show_header=True, box=None, pad_edge=False)
    table.add_column(Text(column), overflow="fold")
    for name in ("asked", "rows", "eligible", "wanted", "kept", "cut-off"):
        table.add_column(name, justify="right")
    for value, group in groups[:_GROUPS_SHOWN]:
        asked, cutoff = group["asked"], group["cutoff"]
        counts = [f"{group[name]:,}" for name in ("rows", "eligible", "wanted", "kept")]
        table.add_row(
            Text(value),
            "" if asked is None else str(asked),
            *counts,
            f"{cutoff['ifd']:.6f}" if cutoff else "",
        )
    console.print(table)
    if len(groups) > _GROUPS_SHOWN:
        console.print(f"and {len(groups) - _GROUPS_SHOWN:,} more values; see the manifest")
    absent = [value for value, group in groups if not group["rows"]]
    short = [value for value, group in groups if group["rows"] and group["kept"] < group["wanted"]]
    for values, what in (
        (absent, "do not occur in the corpus"),
        (short, "have fewer eligible rows than were asked for: all of those are kept"),
    ):
        if values:
            shown = ", ".join(map(repr, values[:_SKIPPED_SHOWN]))
            more = len(values) - _SKIPPED_SHOWN
            shown += f" and {more:,} more" if more > 0 else ""
            _tell(console, f"note     values of {column} that {what}: {shown}")


def _diversity_as_text(diversity: dict[str, Any]) -> str:
    """How well the chosen rows stand for those that they were chosen from."""
    if "wanted_rows" not in diversity:
        return (
            f"note     no more than {diversity['of_rows']:,} rows are left of the IFD cut for "
            "--diversify-to: all of them are kept"
        )
    how, at_least = "exact greedy", ""
    if not diversity["is_exact"]:
        how = f"by parts, {diversity['ratio_to_exact']:.2%} of exact greedy on a sample"
        at_least = "at least "
    return (
        "variety  a row and the kept one most like it have on average a cosine of "
        f"{at_least}{diversity['mean_similarity']:.3f} "
        f"(facility location {at_least}{diversity['objective']:,.1f}, {how})"
    )


def _bounds_as_text(selection: dict[str, Any]) -> str:
    low, high = selection["min_ifd"], selection["max_ifd"]
    texts = [f"IFD below {high:g}" if not low else f"an IFD from {low:g} to {high:g}"]
    for what in ("prompt", "answer"):
        least, most = (selection[f"{end}_{what}_tokens"] for end in ("min", "max"))
        if least is not None and most is not None:
            texts.append(f"{least:,} to {most:,} {what} tokens")
        elif least is not None:
            texts.append(f"{least:,} {what} tokens or more")
        elif most is not None:
            texts.append(f"{most:,} {what} tokens or fewer")
    return ", ".join(texts)


def _tell(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: What it shows.
        columns: Their names; what stands in the first one names a row.
        rows: As many texts each as there are columns.
        is_text: What it holds are no figures.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: bool = False


def print_tables(tables: Sequence[TextTable]) -> None:
    """Prints tables, one below the other."""
    console = Console()
    for number, told in enumerate(tables):
        if number:
            console.print()
        if told.title:
            console.print(told.title, style="bold", highlight=False, markup=False, soft_wrap=True)
        has_head = any(told.columns)
        table = Table(show_header=has_head, box=None, pad_edge=False)
        for place, name in enumerate(told.columns):
            is_figure = place > 0 and not told.is_text
            table.add_column(
                Text(name),
                justify="right" if is_figure else "left",
                overflow="fold",
                no_wrap=is_figure or (told.is_text and not place),
            )
        for row in told.rows:
            table.add_row(*map(Text, row))
        console.print(table)
