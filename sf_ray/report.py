"""One run -> its manifest, and the table that the command line prints of it."""

import bisect
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

import sf_ray
from sf_ray.config import SelectionOptions
from sf_ray.console import duration
from sf_ray.diversity_run import Diversified
from sf_ray.export_run import Exported
from sf_ray.ifd import Status
from sf_ray.locations import Location
from sf_ray.output import MANIFEST_VERSION
from sf_ray.planning import Corpus, SkippedShard
from sf_ray.ranking import Group, Ranking
from sf_ray.rules import ModelSpec
from sf_ray.score_sets import ScoreSet, count_units
from sf_ray.scoring_run import Scored
from sf_ray.storage import now_utc
from sf_ray.writing import WrittenShard

_SKIPPED_SHOWN = 5
_GROUPS_SHOWN = 12


def manifest_of(
    *,
    request_id: str,
    corpus: Corpus,
    score_set: ScoreSet,
    scored: Scored,
    options: SelectionOptions,
    ranking: Ranking,
    dropped_duplicates: int | None,
    diversity: Diversified | None,
    encoder: ModelSpec | None,
    written: list[WrittenShard],
    exported: Exported | None,
    wall_s: dict[str, float],
) -> dict[str, Any]:
    """What went in, what was asked, which model, what came out."""
    total = count_units(score_set.units(corpus))
    return {
        "manifest_version": MANIFEST_VERSION,
        "sf_ray_version": sf_ray.__version__,
        "request_id": request_id,
        "finished": now_utc(),
        "wall_s": {stage: round(seconds, 3) for stage, seconds in wall_s.items()},
        "input": {
            "uri": corpus.location.public_uri,
            "fingerprint": corpus.fingerprint,
            "shards": len(corpus.shards),
            "rows": corpus.rows,
            "bytes": corpus.bytes,
            "skipped_shards": [
                {"path": shard.relative, "reason": shard.reason} for shard in corpus.skipped
            ],
        },
        "scores": {
            "uri": score_set.location.public_uri,
            "scoring_id": score_set.scoring_id,
            "identity": score_set.identity,
            "units": {"total": total, "scored": scored.units, "reused": total - scored.units},
            "tokens": {"scored": scored.tokens, "saved": scored.tokens_saved},
        },
        "selection": _selection_of(options, corpus, ranking, dropped_duplicates)
        | _diversity_of(options, ranking, diversity, encoder),
        "status_counts": {
            status.value: ranking.status_counts.get(status.value, 0) for status in Status
        },
        "output": {
            "ifd_column": options.ifd_column,
            "shards": [
                {"path": shard.relative, "rows": shard.rows, "bytes": shard.bytes}
                for shard in sorted(written, key=lambda shard: shard.relative)
            ],
            "export": None
            if exported is None
            else {
                "name": exported.name,
                "left_out_rows": exported.left_out,
                "files": [
                    {"path": file.relative, "rows": file.rows, "bytes": file.bytes}
                    for file in exported.files
                ],
            },
        },
    }


def _selection_of(
    options: SelectionOptions, corpus: Corpus, ranking: Ranking, dropped_duplicates: int | None
) -> dict[str, Any]:
    """What was asked of the selection, and what it came to."""
    quota = options.quota
    return {
        "keep_fraction": options.keep_fraction,
        "keep_fraction_of": "all input rows",
        "keep_count": options.keep_count,
        "quota": None if quota is None else {quota.column: dict(quota.shares)},
        "min_ifd": options.min_ifd,
        "max_ifd": options.max_ifd,
        "min_prompt_tokens": options.min_prompt_tokens,
        "max_prompt_tokens": options.max_prompt_tokens,
        "min_answer_tokens": options.min_answer_tokens,
        "max_answer_tokens": options.max_answer_tokens,
        "dropped_duplicates": dropped_duplicates,
        "order": options.order,
        "wanted_rows": ranking.wanted,
        "eligible_rows": ranking.eligible,
        "cutoff": None if quota is not None else _cutoff(corpus, ranking.groups[0]),
        "groups": None
        if quota is None
        else {
            group.name: {
                "asked": quota.share(group.name),
                "rows": group.rows,
                "eligible": group.eligible,
                "wanted": group.wanted,
                "kept": group.kept,
                "cutoff": _cutoff(corpus, group),
            }
            for group in ranking.groups
        },
    }


def _diversity_of(
    options: SelectionOptions,
    ranking: Ranking,
    diversity: Diversified | None,
    encoder: ModelSpec | None,
) -> dict[str, Any]:
    """What was asked of `--diversify-to`, what it came to, and how many rows are kept after all."""
    if encoder is None:
        return {"diversity": None, "kept_rows": ranking.kept}
    asked = {
        "diversify_to": options.diversify_to,
        "encoder": Location(encoder.name).public_uri,
        "encoder_fingerprint": encoder.fingerprint,
        "of_rows": ranking.kept,
    }
    if diversity is None:  # no fewer rows were asked for than there are
        return {"diversity": asked, "kept_rows": ranking.kept}
    found = {
        "wanted_rows": diversity.wanted,
        "objective": diversity.objective,
        "mean_similarity": diversity.objective / ranking.kept,
        "is_exact": diversity.is_exact,
        "ratio_to_exact": diversity.ratio_to_exact,
    }
    return {"diversity": asked | found, "kept_rows": len(diversity.rows)}


def _cutoff(corpus: Corpus, group: Group) -> dict[str, Any] | None:
    """The last row that a group keeps, as the manifest has it."""
    if group.cutoff is None:
        return None
    position = group.cutoff.position
    at = bisect.bisect_right(corpus.shards, position, key=lambda one: one.position) - 1
    shard = corpus.shards[at]
    return {
        "ifd": group.cutoff.ifd,
        "shard": shard.file.relative,
        "row": position - shard.position,
    }


def print_scores_summary(
    pieces: Location, rows: int, units: int, skipped: Sequence[SkippedShard]
) -> None:
    """What `sf-ray score` leaves behind."""
    console = Console()
    for shard in skipped:
        console.print(
            f"skipped  {shard.relative}: {shard.reason}",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    console.print(
        f"{rows:,} rows have scores, in {units:,} pieces: {pieces.public_uri}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def print_manifest(manifest: dict[str, Any], output: Location) -> None:
    """Rows by status, the cut-off, what was kept, and where things lie."""
    console = Console()
    selection, rows = manifest["selection"], manifest["input"]["rows"]
    skipped = manifest["input"].get("skipped_shards", [])
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
    bounds = _bounds_as_text(selection)
    dropped = selection["dropped_duplicates"]
    line(f"ok, with {bounds}", selection["eligible_rows"] + (dropped or 0))
    if dropped is not None:
        line("  of them copies of better rows", dropped)
    diversity = selection.get("diversity")
    ranked = diversity["of_rows"] if diversity else selection["kept_rows"]
    if diversity:
        line("of the best IFD", ranked)
    line("kept", selection["kept_rows"], style="bold")
    console.print(table)
    cutoff = selection["cutoff"]
    if cutoff:
        _tell(
            console,
            f"cut-off  IFD {cutoff['ifd']:.6f} (row {cutoff['row']} of {cutoff['shard']})",
        )
    if selection["groups"] is not None:
        _print_groups(console, selection)
    elif ranked < selection["wanted_rows"]:
        copies = "" if dropped is None else " and are no copies"
        _tell(
            console,
            f"note     {selection['wanted_rows']:,} rows were asked for; no more have "
            f"{bounds}{copies}",
        )
    elif not ranked:
        console.print("note     the fraction comes to less than one row: nothing is kept")
    if diversity:
        _tell(console, _diversity_as_text(diversity))
    for shard in skipped[:_SKIPPED_SHOWN]:
        console.print(
            f"skipped  {shard['path']}: {shard['reason']}",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    if len(skipped) > _SKIPPED_SHOWN:
        console.print(f"skipped  {len(skipped) - _SKIPPED_SHOWN} more shards; see the manifest")
    where = output.public_uri.rstrip("/")
    exported = manifest["output"].get("export")
    if exported and exported["left_out_rows"]:
        console.print(
            f"note     {exported['left_out_rows']:,} kept rows are not exported, only in data: "
            f"{exported['name']} has no form for them",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    for name, value in (
        ("data", f"{where}/data"),
        *([("export", f"{where}/export/{exported['name']}")] if exported else []),
        ("scores", f"{manifest['scores']['uri']}/{manifest['scores']['scoring_id']}"),
        ("manifest", f"{where}/manifest.json"),
        ("time", ", ".join(f"{k} {duration(v)}" for k, v in manifest["wall_s"].items())),
    ):
        console.print(f"{name:8} {value}", soft_wrap=True, highlight=False, markup=False)


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
