"""A manifest -> the data card of the output: README.md, as dataset hubs read it. No files.

A name in it may hold anything. So every name stands in a code span that it cannot leave: there,
Markdown knows no link, no HTML and no table; and YAML escapes what it has to.
"""

import re
from pathlib import PurePosixPath
from typing import Any

import yaml

from sf_ray.output.manifest import Manifest
from sf_ray.text.printable import printable

# A README with this mark was written by sf_ray, and may be written over.
MARK = "<!-- written by sf_ray with the data -->"
# Characters of a command that are shown: all of it, unless it is no command.
_COMMAND = 10_000
# The hubs' categories of size: number of rows -> the category of fewer rows.
_SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
    10**9: "100M<n<1B",
}


def render_card(manifest: Manifest) -> str:
    """Renders the card: Markdown behind a head in YAML."""
    kept, rows = manifest.selection.kept_rows, manifest.input.rows
    head = yaml.safe_dump(_head(manifest), sort_keys=False, allow_unicode=False)
    identity = manifest.scores.identity
    is_by_ifd = (manifest.selection.by, manifest.selection.rank_by) == ("ifd", "ifd")
    lines = [
        f"---\n{head}---",
        MARK,
        "# Rows kept by their IFD score" if is_by_ifd else "# Rows kept of a scored corpus",
        f"{kept:,} of the {rows:,} rows of {_code(manifest.input.uri)}, in the columns that they "
        f"came with and {_code(manifest.output.ifd_column)}, the IFD score "
        "([Superfiltering](https://arxiv.org/abs/2402.00530)): "
        "ppl(answer | prompt) / ppl(answer) for a small language model. "
        f"{manifest.selection.which_are_kept}",
        "| | |\n| --- | --- |\n"
        + "\n".join(f"| {_cell(k)} | {_cell(v)} |" for k, v in _facts(manifest)),
        "[report.html](report.html) shows what was kept and what was not; "
        "[manifest.json](manifest.json) has every number. Made by",
        f"    {printable(manifest.command, most=_COMMAND)}",
        f"with scores of {_code(manifest.scores.model_name)} ({_code(identity.dtype)}, "
        f"{_code(identity.alignment)}, window {identity.max_length}). The rows have the licence of "
        "the corpus that they come from.",
    ]
    return "\n\n".join(lines) + "\n"


def _head(manifest: Manifest) -> dict[str, Any]:
    kept = manifest.selection.kept_rows
    paths = [PurePosixPath(shard.path) for shard in manifest.output.shards]
    two_suffixes = {"".join(path.suffixes[-2:]) for path in paths}
    packed = {suffix for suffix in two_suffixes if suffix.endswith((".gz", ".zst"))}
    plain = {path.suffix for path in paths} - {".gz", ".zst"}
    # A suffix that cannot be printed could end the head in a line of its own: any file fits then.
    suffixes = {suffix if printable(suffix) == suffix else "" for suffix in packed | plain}
    patterns = [f"data/**/*{suffix}" for suffix in sorted(suffixes)]
    # A pattern must fit at least one file, so that a card without files names none.
    configs = [{"config_name": "default", "data_files": patterns}]
    return {
        "size_categories": [next((name for most, name in _SIZES.items() if kept < most), "n>1B")],
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "data-selection", "ifd", "sf_ray"],
    } | ({"configs": configs} if patterns else {})


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    selection = manifest.selection
    facts = [("rows in the corpus", f"{manifest.input.rows:,}")]
    facts += [
        (f"status {_code(name)}", f"{count:,}")
        for name, count in manifest.status_counts.items()
        if count
    ]
    facts.append(("eligible", f"{selection.eligible_rows:,}"))
    facts.append(("kept", f"{selection.kept_rows:,}"))
    if (last := selection.cutoff) is not None:
        value = f"{last.value:.6g}" if last.ifd is None else f"{last.ifd:.6f}"
        facts.append((f"{selection.ranked_by} of the cut-off", value))
    if selection.groups is not None:
        facts.append(("quota", f"on {len(selection.groups):,} groups; see the manifest"))
    return facts


def _code(text: str) -> str:
    """Text of others as a code span: between more backticks than stand side by side in the text."""
    shown = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    # A backtick at an end would join the fence; renderers drop one space at both ends.
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _cell(text: str) -> str:
    """Markdown as a cell of a table, which a bar would end, in a code span too."""
    return text.replace("|", "\\|")
