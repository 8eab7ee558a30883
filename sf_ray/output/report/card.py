"""A run's manifest -> the data card of its output, as dataset hubs read it. Knows no files."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

# By which a card of ours is known: somebody else's README is never written over.
MARK = "<!-- written by sf_ray with the data -->"
_SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
    10**9: "100M<n<1B",
}


def render_card(manifest: Mapping[str, Any]) -> str:
    """The card, as Markdown with a YAML head."""
    selection, scores = manifest["selection"], manifest["scores"]
    kept, rows = selection["kept_rows"], manifest["input"]["rows"]
    head = yaml.safe_dump(_head(manifest), sort_keys=False, allow_unicode=True)
    identity = scores["identity"]
    lines = [
        f"---\n{head}---",
        MARK,
        "# Rows kept by their IFD score",
        f"{kept:,} of the {rows:,} rows of `{manifest['input']['uri']}`, in the columns that they "
        f"came with and `{manifest['output']['ifd_column']}`, the IFD score "
        "([Superfiltering](https://arxiv.org/abs/2402.00530)): "
        "ppl(answer | prompt) / ppl(answer) for a small language model. High values below 1 are "
        "kept: what the prompt alone does not explain is left to learn.",
        "| | |\n| --- | --- |\n" + "\n".join(f"| {k} | {v} |" for k, v in _facts(manifest)),
        "[report.html](report.html) shows what was kept and what was not; "
        "[manifest.json](manifest.json) has every number. Made by",
        f"    {manifest['command']}",
        f"with scores of `{scores['model_name']}` ({identity['dtype']}, "
        f"{identity['alignment']}, window {identity['max_length']}). The rows have the licence of "
        "the corpus that they come from.",
    ]
    return "\n\n".join(lines) + "\n"


def _head(manifest: Mapping[str, Any]) -> dict[str, Any]:
    kept = manifest["selection"]["kept_rows"]
    suffixes = {"".join(PurePosixPath(one["path"]).suffixes[-2:]) for one in _shards(manifest)}
    packed = {suffix for suffix in suffixes if suffix.endswith((".gz", ".zst"))}
    plain = {PurePosixPath(one["path"]).suffix for one in _shards(manifest)} - {".gz", ".zst"}
    patterns = [f"data/**/*{suffix}" for suffix in sorted(packed | plain)]
    return {
        "size_categories": [next((name for most, name in _SIZES.items() if kept < most), "n>1B")],
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "data-selection", "ifd", "sf_ray"],
        "configs": [{"config_name": "default", "data_files": patterns}],
    }


def _shards(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    shards: list[Mapping[str, Any]] = manifest["output"]["shards"]
    return shards


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    selection, rows = manifest["selection"], manifest["input"]["rows"]
    facts = [("rows in the corpus", f"{rows:,}")]
    facts += [
        (f"status `{name}`", f"{count:,}")
        for name, count in manifest["status_counts"].items()
        if count
    ]
    facts.append(("eligible", f"{selection['eligible_rows']:,}"))
    facts.append(("kept", f"{selection['kept_rows']:,}"))
    if selection["cutoff"]:
        facts.append(("IFD of the cut-off", f"{selection['cutoff']['ifd']:.6f}"))
    if selection["groups"] is not None:
        facts.append(("quota", f"on {len(selection['groups']):,} groups; see the manifest"))
    return facts
