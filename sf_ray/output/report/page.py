"""A manifest and a summary -> report.html, the page that shows what was kept and why.

Tables, numbers and rows; the plots are made in `page_plots`. No files.
"""

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from sf_ray.config.quotas import rows_to_keep
from sf_ray.corpus.status import Status
from sf_ray.output.manifest import GroupResult, Manifest
from sf_ray.output.report.html import render
from sf_ray.output.report.left_out import left_out_notes
from sf_ray.output.report.page_lengths import lengths_of_page
from sf_ray.output.report.page_plots import plots_of
from sf_ray.output.report.row_kinds import RowKind, ScoreKind
from sf_ray.output.report.summary import ShownRow, Summary
from sf_ray.output.report.survey import Survey
from sf_ray.runtime.log import duration

# Fractions to keep, for which the page shows the cut-offs.
_FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
# The most groups in the table, rows of a kind, and skipped shards named in the note.
_MOST_GROUPS, _MOST_ROWS, _MOST_SKIPPED = 40, 6, 3
# Values of --by that keep rows of the highest values, within the bounds of those.
_BY_HIGHEST = ("ifd", "length-normalised")
# Kinds whose first row is shown unfolded.
_OPEN = (ScoreKind.BEST, ScoreKind.FIRST_MISSED)


def render_page(manifest: Manifest, summary: Summary) -> str:
    """Renders the whole page, as HTML."""
    selection, survey = manifest.selection, summary.survey
    cutoff = selection.cutoff.ifd if selection.cutoff else None
    groups = list(_groups(manifest, summary))
    return render(
        "page",
        title=f"What was kept of {manifest.input.uri}",
        model=manifest.scores.model_name,
        finished=manifest.finished,
        version=manifest.sf_ray_version,
        rows=f"{manifest.input.rows:,}",
        tiles=_tiles(manifest),
        notes=_notes(manifest),
        overlaps=selection.overlaps,
        plots={name: Markup(svg) for name, svg in plots_of(survey, cutoff).items()},
        above=f"{survey.ok[-1]:,}" if survey.ok[-1] else "",
        which_are_kept=selection.which_are_kept,
        lengths=summary.answer_lengths and lengths_of_page(summary.answer_lengths, selection.by),
        besides="" if selection.groups is None else ", without the quota",
        fractions=list(_fractions(manifest, survey)),
        statuses=list(_statuses(manifest)),
        column=summary.column,
        groups=groups[:_MOST_GROUPS],
        more_groups=_more(len(groups) - _MOST_GROUPS),
        groups_note=_groups_note(summary),
        has_cutoffs=any(group["cutoff"] for group in groups),
        sections=list(_sections(summary)),
        accounts=list(_accounts(manifest, survey)),
        command=manifest.command,
        identity=list(_identity(manifest, summary)),
    )


def _tiles(manifest: Manifest) -> list[tuple[str, str]]:
    """The numbers at the top, each with a text below it."""
    rows, selection = manifest.input.rows, manifest.selection
    kept, ok = selection.kept_rows, manifest.status_counts.get(Status.OK, 0)
    tiles = [
        (f"{rows:,}", "rows in the corpus"),
        (f"{ok:,}", f"have a score ({_share(ok, rows)})"),
        (f"{kept:,}", f"are kept ({_share(kept, rows)})"),
    ]
    if selection.cutoff:
        last = selection.cutoff
        value = f"{last.value:.4g}" if last.ifd is None else f"{last.ifd:.4f}"
        tiles.append((value, f"{selection.ranked_by} of the cut-off"))
    if selection.groups:
        with_cutoff = sum(1 for group in selection.groups.values() if group.kept)
        tiles.append((f"{with_cutoff:,}", "groups with a cut-off of their own"))
    return tiles


def _notes(manifest: Manifest) -> list[str]:
    """Sentences on why fewer rows are kept than a reader may expect."""
    selection, notes = manifest.selection, []
    diversity = selection.diversity
    if diversity and diversity.mean_similarity is not None:
        notes.append(
            f"Of the {diversity.of_rows:,} rows that are ranked best, {selection.kept_rows:,} "
            "that best stand for all of them are kept (facility location; mean cosine to the "
            f"nearest kept row {diversity.mean_similarity:.3f})."
        )
    elif selection.groups is None and selection.kept_rows < selection.wanted_rows:
        notes.append(
            f"{selection.wanted_rows:,} rows were asked for; no more lie within the bounds."
        )
    if exact := manifest.scores.exact:
        notes.append(
            f"{exact.rescored_rows:,} rows near the cut-off or a bound were scored again in "
            f"{exact.dtype}. On {exact.sampled_rows:,} sampled rows, IFD in "
            f"{manifest.scores.identity.dtype} is off by {exact.largest_error:.2%} at most."
        )
    notes += left_out_notes(selection)
    if skipped := manifest.input.skipped_shards:
        names = ", ".join(shard.path for shard in skipped[:_MOST_SKIPPED])
        notes.append(f"{len(skipped):,} shards could not be used and are left out, e.g. {names}.")
    return notes


def _fractions(manifest: Manifest, survey: Survey) -> Iterator[dict[str, Any]]:
    """For each fraction that could be kept, its rows and cut-off, without selecting again.

    Nothing where the highest IFD is not the best: other rows may be kept then.
    """
    if manifest.selection.ranked_by != "IFD" or manifest.selection.by not in _BY_HIGHEST:
        return
    asked = manifest.selection.keep_fraction
    eligible = int(survey.eligible.sum())
    for fraction in sorted({*_FRACTIONS, *([asked] if asked else [])}):
        wanted = rows_to_keep(manifest.input.rows, float(fraction))
        cutoff = survey.cutoff_of_best(wanted)
        yield {
            "fraction": f"{fraction:.4%}".rstrip("0%").rstrip(".") + " %",
            "rows": f"{min(wanted, eligible):,}" + (" (all eligible)" if eligible < wanted else ""),
            "cutoff": "" if cutoff is None else f"{cutoff:.3f}",
            "is_asked": fraction == asked,
        }


def _statuses(manifest: Manifest) -> Iterator[dict[str, str]]:
    for name, rows in manifest.status_counts.items():
        if rows:
            yield {
                "name": name,
                "rows": f"{rows:,}",
                "share": _share(rows, manifest.input.rows),
                "meaning": Status(name).meaning,
            }


def _groups(manifest: Manifest, summary: Summary) -> Iterator[dict[str, Any]]:
    """The values of the summary's column, the one with the most rows first."""
    counts, results = summary.survey.groups or {}, manifest.selection.groups or {}
    for value, group in sorted(counts.items(), key=lambda item: (-item[1].rows, item[0])):
        result = results.get(value)
        yield {
            "name": value,
            "rows": f"{group.rows:,}",
            "ok": f"{group.ok:,}",
            "kept": f"{group.kept:,}",
            "share": _share(group.kept, group.rows),
            "percent": f"{100 * group.kept / group.rows:.1f}" if group.rows else "0",
            "cutoff": _cutoff_as_text(result),
        }


def _cutoff_as_text(result: GroupResult | None) -> str:
    last = result.cutoff if result else None
    return "" if last is None or last.ifd is None else f"{last.ifd:.4f}"


def _more(count: int) -> str:
    return f"and {count:,} more values" if count > 0 else ""


def _groups_note(summary: Summary) -> str:
    """Stands in place of the table of groups where there is none."""
    if not summary.column:
        return "Kept shares by a column of the corpus: --report-by COLUMN."
    return f"{summary.column} has too many values to tell them apart."


def _sections(summary: Summary) -> Iterator[dict[str, Any]]:
    """Rows to read, by kind: those of scores first, then the statuses that occur."""
    kinds: dict[RowKind, None] = dict.fromkeys(ScoreKind)
    kinds |= dict.fromkeys(kind for row in summary.rows for kind in row.kinds)
    shown: list[set[tuple[str, int]]] = []
    for kind in kinds:
        rows = summary.rows_of(kind)
        places = {row.place for row in rows}
        # Two kinds may have the same rows: the best are those just below 1 without other bounds.
        if rows and places not in shown:
            shown.append(places)
            yield {
                "title": kind.title,
                "about": kind.about,
                "is_open": kind in _OPEN,
                "rows": [_row(row) for row in rows[:_MOST_ROWS]],
            }


def _row(row: ShownRow) -> dict[str, Any]:
    scores = row.scores
    parts = [
        f"{name.replace('_', ' ')} {scores[name]:,.4g}"
        for name in ("ppl_direct", "ppl_conditioned")
        if name in scores
    ]
    parts += [
        f"{scores[name]:,} {name.replace('_', ' ')}"
        for name in ("prompt_tokens", "answer_tokens")
        if name in scores
    ]
    return {
        "ifd": f"{scores['ifd']:.4f}" if "ifd" in scores else "",
        "status": row.status,
        "is_kept": row.is_kept,
        "number": f"{row.row:,}",
        "shard": row.shard,
        "reason": row.reason,
        "texts": row.texts,
        "omitted": row.omitted,
        "scores": ", ".join(parts),
    }


def _accounts(manifest: Manifest, survey: Survey) -> Iterator[tuple[str, str]]:
    """Tokens and time."""
    yield "tokens of prompts", f"{survey.prompt_tokens:,}"
    yield "tokens of answers", f"{survey.answer_tokens:,}"
    yield "answers that the window cut", f"{survey.truncated:,}"
    tokens, units = manifest.scores.tokens, manifest.scores.units
    if tokens.scored:
        saved = _share(tokens.saved, tokens.scored)
        yield "scored in this run, both passes", f"{tokens.scored:,} tokens"
        yield "of them not computed twice", f"{tokens.saved:,} ({saved})"
    yield "units", f"{units.scored:,} scored, {units.reused:,} had scores"
    scoring_s = manifest.wall_s.get("score")
    if tokens.scored and scoring_s:
        yield "rate", f"{tokens.scored / scoring_s:,.0f} tokens/s with the start"
    for stage, seconds in manifest.wall_s.items():
        yield stage, duration(seconds)


def _identity(manifest: Manifest, summary: Summary) -> Iterator[tuple[str, str]]:
    """All that decided the scores, and which text of the corpus did not."""
    scores = manifest.scores
    yield "model", f"{scores.model_name} ({scores.identity.model})"
    yield "scores", scores.pieces
    for name, value in scores.identity.items():
        if name not in ("model", "scoring_version"):
            text = ", ".join(f"{k}={v}" for k, v in value.items()) if name == "columns" else value
            yield name.replace("_", " "), str(text)
    if summary.unused:
        yield "columns not used", ", ".join(summary.unused)
    yield "input fingerprint", manifest.input.fingerprint
    yield "shards", f"{manifest.input.shards:,}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
