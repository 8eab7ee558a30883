"""Rows that were left out for what they say, in words: for the terminal and the page."""

from collections.abc import Iterator

from sf_ray.output.manifest import SelectionResult
from sf_ray.output.manifest_left_out import NearDuplicates
from sf_ray.text.printable import printable


def left_out_lines(selection: SelectionResult) -> Iterator[str]:
    """Lines for the terminal: overlaps with evaluation sets, and how near copies were found."""
    if selection.overlap_with:
        rows = selection.overlapping_rows
        yield f"overlap  {rows:,} rows share 13 words in a row with the evaluation sets"
    for shared in selection.overlaps[:1]:
        yield (
            f"         e.g. row {shared.row:,} of {printable(shared.shard)} with row "
            f"{shared.in_row:,} of {printable(shared.in_shard)}: {printable(shared.words)}"
        )
    near = selection.near_duplicates
    if near is not None and near.sampled_rows is not None:
        yield f"near     {_sampled(near)}"


def left_out_notes(selection: SelectionResult) -> Iterator[str]:
    """Sentences for the page."""
    if selection.dropped_duplicates:
        yield f"{selection.dropped_duplicates:,} copies of better rows were left out."
    if (near := selection.near_duplicates) is not None:
        what = "a cosine" if near.by == "embedding" else "a Jaccard index"
        yield (
            f"{near.dropped_rows:,} near copies of better rows were left out ({what} of "
            f"{near.threshold:g} or more). "
            + (f"{_sampled(near)}." if near.sampled_rows is not None else "")
        )
    if selection.excluded:
        places = ", ".join(files.uri for files in selection.excluded)
        yield f"{selection.excluded_rows:,} rows stand in {places}, and may not be kept."
    if selection.overlap_with:
        places = ", ".join(files.uri for files in selection.overlap_with)
        yield (
            f"{selection.overlapping_rows:,} rows share 13 words in a row with {places}, and may "
            "not be kept."
        )


def _sampled(near: NearDuplicates) -> str:
    """What was found of the near copies of a sample."""
    found, there, rows = (
        count or 0 for count in (near.sampled_found_rows, near.sampled_near_rows, near.sampled_rows)
    )
    return f"{found:,} of the {there:,} near copies among {rows:,} sampled rows were found"
