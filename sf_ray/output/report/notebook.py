"""What a notebook shows of scores and of a finished run: a part of a page, as HTML.

Reads no files: a notebook asks for it whenever a value ends a cell.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from sf_ray.corpus.status import Status
from sf_ray.output.manifest import Manifest
from sf_ray.output.report.html import render
from sf_ray.output.report.page_plots import NARROW, ifd_histogram
from sf_ray.output.report.summary import Summary
from sf_ray.output.report.survey import by_ifd
from sf_ray.output.report.surveyed_rows import Floats, Ints
from sf_ray.text.printable import printable

Facts = Sequence[tuple[str, str]]


def facts_as_html(title: str, facts: Facts, note: str = "") -> str:
    """A title and some named values.

    Args:
        title: What is shown.
        facts: Names and values, which others may have written.
        note: A last line.
    """
    shown = [(name, printable(value)) for name, value in facts]
    return render("notebook", title=title, facts=shown, plot="", columns=(), rows=(), note=note)


def scores_as_html(
    ifd: Floats, columns: Sequence[str], rows: Sequence[Sequence[object]], total: int
) -> str:
    """Scores: how many rows have one, their histogram, and some of the rows.

    Args:
        ifd: [rows with a score].
        columns: Names of the columns of the table.
        rows: The first rows, with a value for each column; others may have written texts.
        total: Number of all rows.
    """
    facts = [("with a score", f"{len(ifd):,}")]
    if len(ifd):
        low, middle, high = np.quantile(ifd, (0.05, 0.5, 0.95))
        facts.append(("median IFD", f"{middle:.4f} (5 % below {low:.4f}, 5 % above {high:.4f})"))
        facts.append(("IFD of 1 or more", f"{int((ifd >= 1).sum()):,}"))
    counts = by_ifd(ifd)
    return render(
        "notebook",
        title=f"{total:,} score" + "s" * (total != 1),
        facts=facts,
        plot=_plot(counts, np.zeros_like(counts), None),
        columns=columns,
        rows=[[printable(value) for value in row] for row in rows],
        note=f"and {total - len(rows):,} more" if total > len(rows) else "",
    )


def run_as_html(manifest: Manifest, summary: Summary, output: str) -> str:
    """A finished run: what it kept, where its cut is, and where its files lie.

    Args:
        manifest: Of the run.
        summary: Of the run.
        output: OUTPUT, as it is reached now.
    """
    selection, rows = manifest.selection, manifest.input.rows
    share = f" ({selection.kept_rows / rows:.1%})" if rows else ""
    cutoff = selection.cutoff
    facts = [("kept", f"{selection.kept_rows:,} of {rows:,} rows{share}")]
    if cutoff is not None:
        value = cutoff.value if cutoff.ifd is None else cutoff.ifd
        facts.append(
            (
                "cut-off",
                f"{selection.ranked_by} {value:.6f} (row {cutoff.row:,} of {cutoff.shard})",
            )
        )
    elif selection.groups is not None:
        facts.append(("cut-off", f"one for each of {len(selection.groups):,} groups"))
    ok = manifest.status_counts.get(Status.OK.value, 0)
    facts += [
        ("with a score", f"{ok:,}"),
        ("eligible", f"{selection.eligible_rows:,}"),
        ("model", manifest.scores.model_name),
        ("finished", manifest.finished),
        ("data", f"{output}/data"),
        ("report", f"{output}/report.html"),
        ("manifest", f"{output}/manifest.json"),
        ("scores", manifest.scores.pieces),
    ]
    survey = summary.survey
    return render(
        "notebook",
        title=f"What was kept of {printable(manifest.input.uri)}",
        facts=[(name, printable(value)) for name, value in facts],
        plot=_plot(survey.ok, survey.kept, cutoff.ifd if cutoff else None),
        columns=(),
        rows=(),
        note="",
    )


def _plot(ok: Ints, kept: Ints, cutoff: float | None) -> Markup:
    """The histogram of IFD; nothing where no row has a score."""
    if not ok.any():
        return Markup()
    # A notebook is one page, and elements of a page share their names.
    content = hashlib.sha256(ok.tobytes() + kept.tobytes() + repr(cutoff).encode())
    svg = ifd_histogram(f"ifd-{content.hexdigest()[:12]}", ok, kept, cutoff, NARROW)
    # Its style sheet would also be that of all other drawings of the notebook.
    return Markup(re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL))
