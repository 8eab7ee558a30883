"""One run -> its manifest, and the table that the command line prints of it."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

import sf_ray
from sf_ray.config import SelectionOptions
from sf_ray.console import duration
from sf_ray.ifd import Status
from sf_ray.locations import Location
from sf_ray.output import MANIFEST_VERSION
from sf_ray.planning import Corpus, SkippedShard
from sf_ray.ranking import Ranking
from sf_ray.score_sets import ScoreSet, count_units
from sf_ray.scoring_run import Scored
from sf_ray.storage import now_utc
from sf_ray.writing import WrittenShard

_SKIPPED_SHOWN = 5


def manifest_of(
    *,
    request_id: str,
    corpus: Corpus,
    score_set: ScoreSet,
    scored: Scored,
    options: SelectionOptions,
    ranking: Ranking,
    written: list[WrittenShard],
    wall_s: dict[str, float],
) -> dict[str, Any]:
    """What went in, what was asked, which model, what came out."""
    total = count_units(score_set.units(corpus))
    cutoff = None
    if ranking.cutoff is not None:
        position = ranking.cutoff.position
        shard = max((s for s in corpus.shards if s.position <= position), key=lambda s: s.position)
        cutoff = {
            "ifd": ranking.cutoff.ifd,
            "shard": shard.file.relative,
            "row": position - shard.position,
        }
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
        "selection": {
            "keep_fraction": options.keep_fraction,
            "keep_fraction_of": "all input rows",
            "keep_count": options.keep_count,
            "min_ifd": options.min_ifd,
            "max_ifd": options.max_ifd,
            "wanted_rows": ranking.wanted,
            "eligible_rows": ranking.eligible,
            "kept_rows": ranking.kept,
            "cutoff": cutoff,
        },
        "status_counts": {
            status.value: ranking.status_counts.get(status.value, 0) for status in Status
        },
        "output": {
            "ifd_column": options.ifd_column,
            "shards": [
                {"path": shard.relative, "rows": shard.rows, "bytes": shard.bytes}
                for shard in sorted(written, key=lambda shard: shard.relative)
            ],
        },
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
    low, high = selection["min_ifd"], selection["max_ifd"]
    bounds = f"below {high:g}" if not low else f"from {low:g} to {high:g}"
    line(f"ok, with IFD {bounds}", selection["eligible_rows"])
    line("kept", selection["kept_rows"], style="bold")
    console.print(table)
    cutoff = selection["cutoff"]
    if cutoff:
        console.print(
            f"cut-off  IFD {cutoff['ifd']:.6f} (row {cutoff['row']} of {cutoff['shard']})",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    if selection["kept_rows"] < selection["wanted_rows"]:
        console.print(
            f"note     {selection['wanted_rows']:,} rows were asked for; no more have an IFD "
            f"{bounds}",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    elif not selection["kept_rows"]:
        console.print("note     the fraction comes to less than one row: nothing is kept")
    for shard in skipped[:_SKIPPED_SHOWN]:
        console.print(
            f"skipped  {shard['path']}: {shard['reason']}",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    if len(skipped) > _SKIPPED_SHOWN:
        console.print(f"skipped  {len(skipped) - _SKIPPED_SHOWN} more shards; see the manifest")
    where = output.public_uri.rstrip("/")
    for name, value in (
        ("data", f"{where}/data"),
        ("scores", f"{manifest['scores']['uri']}/{manifest['scores']['scoring_id']}"),
        ("manifest", f"{where}/manifest.json"),
        ("time", ", ".join(f"{k} {duration(v)}" for k, v in manifest["wall_s"].items())),
    ):
        console.print(f"{name:8} {value}", soft_wrap=True, highlight=False, markup=False)
