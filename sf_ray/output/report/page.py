"""A run's manifest and summary -> one page that shows what was kept and why.

Knows no files.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from sf_ray.config.quotas import rows_to_keep
from sf_ray.corpus.status import Status
from sf_ray.output.report.html import render
from sf_ray.output.report.plots import Axis, Line, Scatter, density, histogram, short
from sf_ray.output.report.summary import ShownRow, Summary
from sf_ray.output.report.survey import IFD_EDGES, IFD_WIDTH, PPL_EDGES, TOKEN_EDGES, Survey
from sf_ray.runtime.log import duration

_FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
_MOST_GROUPS, _MOST_ROWS = 40, 6
# Bins of IFD that one bar stands for, and what is shown where nothing lies beyond.
_BINS_A_BAR, _LEAST_SHOWN = 64, 1.2
_MEANING = {
    Status.OK: "has a score; only these can be kept",
    Status.EMPTY_ANSWER: "the answer has no tokens",
    Status.ANSWER_TOO_SHORT: "no token of the answer to average over",
    Status.PROMPT_FILLS_WINDOW: "the prompt leaves the answer no room",
    Status.BAD_ROW: "a field is missing, null or no text",
    Status.NO_ASSISTANT_TURN: "a chat without an answer",
    Status.ENDS_IN_USER_TURN: "a chat whose last message is not an answer",
    Status.NO_PROMPT: "nothing stands before the only answer",
    Status.UNKNOWN_ROLE: "a message of a role that no format knows",
    Status.EMPTY_TURN: "a message that says nothing",
    Status.UNSUPPORTED_PART: "a part of a message is no text",
    Status.TEMPLATE_ERROR: "the template fails on the row",
    Status.NON_FINITE: "the model gave a value that is not finite",
    Status.ENGINE_ERROR: "the model fails on the row",
}
_SECTIONS = {
    "best": ("Kept, with the highest IFD", ""),
    "last kept": ("The last ones that are kept", "Just above the cut-off."),
    "first missed": ("The first ones that are left out", "Just below the cut-off."),
    "below 1": ("Just below 1", "The prompt helps the model hardly at all."),
    "above 1": (
        "Just above 1",
        "The answer is less likely with its prompt than without: it may not belong to it.",
    ),
    "lowest": ("The lowest IFD", "The prompt says nearly everything: there is little to learn."),
}


def render_page(manifest: Mapping[str, Any], summary: Summary) -> str:
    """The whole page, as HTML."""
    selection, survey = manifest["selection"], summary.survey
    groups = list(_groups(summary, selection["groups"]))
    return render(
        "page",
        title=f"What was kept of {manifest['input']['uri']}",
        model=manifest["scores"]["model_name"],
        finished=manifest["finished"],
        version=manifest["sf_ray_version"],
        rows=f"{manifest['input']['rows']:,}",
        tiles=_tiles(manifest),
        notes=_notes(manifest),
        plots={name: Markup(svg) for name, svg in _plots(survey, selection).items()},
        above=f"{survey.ok[-1]:,}" if survey.ok[-1] else "",
        besides="" if selection["groups"] is None else ", without the quota",
        fractions=list(_fractions(manifest, survey)),
        statuses=list(_statuses(manifest)),
        column=summary.column,
        groups=groups[:_MOST_GROUPS],
        more_groups=_more(len(groups) - _MOST_GROUPS),
        groups_note=_groups_note(summary),
        has_cutoffs=selection["groups"] is not None,
        sections=list(_sections(summary.rows)),
        accounts=list(_accounts(manifest, survey)),
        command=manifest["command"],
        identity=list(_identity(manifest)),
    )


def _tiles(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows, selection = manifest["input"]["rows"], manifest["selection"]
    kept, ok = selection["kept_rows"], manifest["status_counts"][Status.OK]
    tiles = [
        (f"{rows:,}", "rows in the corpus"),
        (f"{ok:,}", f"have a score ({_share(ok, rows)})"),
        (f"{kept:,}", f"are kept ({_share(kept, rows)})"),
    ]
    if selection["cutoff"]:
        tiles.append((f"{selection['cutoff']['ifd']:.4f}", "IFD of the cut-off"))
    if selection["groups"]:
        with_cutoff = sum(1 for group in selection["groups"].values() if group["kept"])
        tiles.append((f"{with_cutoff:,}", "groups with a cut-off of their own"))
    return tiles


def _notes(manifest: Mapping[str, Any]) -> list[str]:
    selection, notes = manifest["selection"], []
    diversity = selection["diversity"]
    if diversity and "wanted_rows" in diversity:
        notes.append(
            f"Of the {diversity['of_rows']:,} rows with the best IFD, {selection['kept_rows']:,} "
            "that best stand for all of them are kept (facility location; mean cosine to the "
            f"nearest kept row {diversity['mean_similarity']:.3f})."
        )
    elif selection["groups"] is None and selection["kept_rows"] < selection["wanted_rows"]:
        notes.append(
            f"{selection['wanted_rows']:,} rows were asked for; no more lie within the bounds."
        )
    if selection["dropped_duplicates"]:
        notes.append(f"{selection['dropped_duplicates']:,} copies of better rows were left out.")
    if skipped := manifest["input"]["skipped_shards"]:
        names = ", ".join(shard["path"] for shard in skipped[:3])
        notes.append(f"{len(skipped):,} shards could not be used and are left out, e.g. {names}.")
    return notes


def _plots(survey: Survey, selection: Mapping[str, Any]) -> dict[str, str]:
    lines = [Line(1.0, "1: no help")]
    level = [Line(1.0, kind="level")]
    if cutoff := selection["cutoff"]:
        lines.insert(0, Line(cutoff["ifd"], f"cut-off {cutoff['ifd']:.4f}"))
        level.append(Line(cutoff["ifd"], kind="level"))
    direct, conditioned, ifd, prompts, answers, kept = survey.points.values.T
    is_kept = kept == 1

    def scatter(x: NDArray[np.float64], y: NDArray[np.float64]) -> Scatter:
        return Scatter(x, y, is_kept)

    def by_tokens(name: str, counts: NDArray[np.int64], tokens: NDArray[np.float64]) -> str:
        ticks = range(15)
        axis = Axis(f"{name} tokens", TOKEN_EDGES, ticks, [short(2**tick) for tick in ticks])
        points = scatter(np.log2(np.maximum(tokens, 1)), ifd)
        return density(name, axis, Axis("IFD", IFD_EDGES), counts, points, level)

    rest, rows_kept = _bars(survey)
    edges = np.arange(len(rest) + 1, dtype=np.float64) * (_BINS_A_BAR * IFD_WIDTH)
    bars = Axis("IFD", edges), rest, rows_kept, lines
    return {
        "ifd": histogram("ifd", *bars),
        "narrow": histogram("narrow", *bars, width=4.2),
        "ppl": density(
            "ppl",
            _perplexity("perplexity of the answer alone"),
            _perplexity("perplexity behind its prompt"),
            survey.ppl,
            scatter(np.log10(direct), np.log10(conditioned)),
            [Line(0, kind="diagonal")],
        ),
        "answer": by_tokens("answer", survey.by_answer, answers),
        "prompt": by_tokens("prompt", survey.by_prompt, prompts),
    }


def _perplexity(label: str) -> Axis:
    ticks = range(6)
    return Axis(label, PPL_EDGES, ticks, [short(10**tick) for tick in ticks])


def _bars(survey: Survey) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[bars] rows with a score that are not kept, and those that are; none above 2."""
    ok, kept = (
        counts[:-1].reshape(-1, _BINS_A_BAR).sum(axis=1) for counts in (survey.ok, survey.kept)
    )
    last = int(np.flatnonzero(ok)[-1]) + 2 if ok.any() else 0
    shown = max(last, round(_LEAST_SHOWN / (_BINS_A_BAR * IFD_WIDTH)))
    return ok[:shown] - kept[:shown], kept[:shown]


def _fractions(manifest: Mapping[str, Any], survey: Survey) -> Iterator[dict[str, Any]]:
    rows, selection = manifest["input"]["rows"], manifest["selection"]
    asked = selection["keep_fraction"]
    for fraction in sorted({*_FRACTIONS, *([asked] if asked else [])}):
        wanted = rows_to_keep(rows, float(fraction))
        found = min(wanted, int(survey.eligible.sum()))
        cutoff = survey.cutoff_of_best(wanted)
        yield {
            "fraction": f"{fraction:.4%}".rstrip("0%").rstrip(".") + " %",
            "rows": f"{found:,}" + (" (all eligible)" if found < wanted else ""),
            "cutoff": "" if cutoff is None else f"{cutoff:.3f}",
            "is_asked": fraction == asked,
        }


def _statuses(manifest: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    total = manifest["input"]["rows"]
    for name, rows in manifest["status_counts"].items():
        if rows:
            yield {
                "name": name,
                "rows": f"{rows:,}",
                "share": _share(rows, total),
                "meaning": _MEANING[Status(name)],
            }


def _groups(summary: Summary, with_cutoffs: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Largest first."""
    groups = summary.survey.groups or {}
    for name, group in sorted(groups.items(), key=lambda one: (-one[1].rows, one[0])):
        cutoff = (with_cutoffs or {}).get(name, {}).get("cutoff")
        yield {
            "name": name,
            "rows": f"{group.rows:,}",
            "ok": f"{group.ok:,}",
            "kept": f"{group.kept:,}",
            "share": _share(group.kept, group.rows),
            "percent": f"{100 * group.kept / group.rows:.1f}" if group.rows else "0",
            "cutoff": f"{cutoff['ifd']:.4f}" if cutoff else "",
        }


def _more(count: int) -> str:
    return f"and {count:,} more values" if count > 0 else ""


def _groups_note(summary: Summary) -> str:
    if not summary.column:
        return "Kept shares by a column of the corpus: --report-by COLUMN."
    return f"{summary.column} has too many values to tell them apart."


def _sections(rows: Sequence[ShownRow]) -> Iterator[dict[str, Any]]:
    titles = dict(_SECTIONS)
    for row in rows:
        for kind in row.kinds:
            if kind.startswith("status "):
                name = kind.removeprefix("status ")
                titles.setdefault(kind, (f"Status {name}", _MEANING[Status(name)] + "."))
    shown: list[set[tuple[str, int]]] = []
    for kind, (title, about) in titles.items():
        of_kind = sorted((row for row in rows if kind in row.kinds), key=_order(kind))
        places = {(row.shard, row.row) for row in of_kind}
        # The best ones lie just below 1 where nothing else bounds them.
        if of_kind and places not in shown:
            shown.append(places)
            yield {
                "title": title,
                "about": about,
                "is_open": kind in ("best", "first missed"),
                "rows": [_row(row) for row in of_kind[:_MOST_ROWS]],
            }


def _order(kind: str) -> Any:
    sign = -1 if kind in ("best", "first missed", "below 1") else 1
    return lambda row: (sign * row.scores.get("ifd", 0.0), row.shard, row.row)


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


def _accounts(manifest: Mapping[str, Any], survey: Survey) -> Iterator[tuple[str, str]]:
    yield "tokens of prompts", f"{survey.prompt_tokens:,}"
    yield "tokens of answers", f"{survey.answer_tokens:,}"
    yield "answers that the window cut", f"{survey.truncated:,}"
    tokens, units = manifest["scores"]["tokens"], manifest["scores"]["units"]
    if tokens["scored"]:
        saved = _share(tokens["saved"], tokens["scored"])
        yield "scored in this run, both passes", f"{tokens['scored']:,} tokens"
        yield "of them not computed twice", f"{tokens['saved']:,} ({saved})"
    yield "units", f"{units['scored']:,} scored, {units['reused']:,} had scores"
    wall_s = manifest["wall_s"]
    if tokens["scored"] and wall_s.get("score"):
        yield "rate", f"{tokens['scored'] / wall_s['score']:,.0f} tokens/s with the start"
    for stage, seconds in wall_s.items():
        yield stage, duration(seconds)


def _identity(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    scores = manifest["scores"]
    yield "model", f"{scores['model_name']} ({scores['identity']['model']})"
    yield "scores", f"{scores['uri']}/{scores['scoring_id']}"
    for name, value in scores["identity"].items():
        if name not in ("model", "scoring_version"):
            text = ", ".join(f"{k}={v}" for k, v in value.items()) if name == "columns" else value
            yield name.replace("_", " "), str(text)
    yield "input fingerprint", manifest["input"]["fingerprint"]
    yield "shards", f"{manifest['input']['shards']:,}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
