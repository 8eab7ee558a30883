"""`sf-ray demo`: the whole job on text from Python's own library, with damage that is known."""

import importlib
import inspect
import random
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from sf_ray.commands import pipeline
from sf_ray.config.options import DemoOptions, RunOptions
from sf_ray.errors import SfRayError

_MODULES = (
    "argparse", "array", "ast", "asyncio", "base64", "bisect", "calendar", "cmath", "codecs",
    "collections", "colorsys", "configparser", "contextlib", "copy", "csv", "datetime", "decimal",
    "difflib", "email.utils", "enum", "fileinput", "filecmp", "fnmatch", "fractions", "functools",
    "getpass", "gettext", "glob", "graphlib", "gzip", "hashlib", "heapq", "hmac", "html",
    "http.client", "imaplib", "inspect", "io", "ipaddress", "itertools", "json", "keyword",
    "linecache", "locale", "logging", "mailbox", "math", "mimetypes", "operator", "os", "os.path",
    "pathlib", "pickle", "pkgutil", "platform", "plistlib", "pprint", "queue", "quopri", "random",
    "re", "reprlib", "sched", "secrets", "selectors", "shelve", "shlex", "shutil", "signal",
    "socket", "sqlite3", "ssl", "stat", "statistics", "string", "struct", "subprocess", "tarfile",
    "tempfile", "textwrap", "threading", "time", "timeit", "tokenize", "traceback", "types",
    "typing", "unicodedata", "unittest", "urllib.parse", "uuid", "warnings", "wave", "weakref",
    "xml.etree.ElementTree", "zipfile", "zlib",
)  # fmt: skip
_ROWS, _SHARDS, _SEED = 300, 4, 0
_EXCHANGED, _EMPTY, _NULL = 0.15, 0.03, 0.02
_KEEP = 0.25


def demo(options: DemoOptions) -> None:
    """Makes the corpus, runs the main job on it and says what became of each kind of row."""
    root = Path(options.output)
    corpus, output = root / "corpus", root / "output"
    if not corpus.exists():
        write_corpus(corpus)
    console = Console()
    # As a person can type it here, also where the environment is not activated.
    command = "sf-ray" if shutil.which("sf-ray") else sys.argv[0]
    asked = f"run {corpus} {output} --model demo --keep-fraction {_KEEP} --report-by planted"
    console.print(
        f"{_ROWS} questions about Python's library, answered by its docstrings, in {corpus}/;\n"
        f"{_EXCHANGED:.0%} of the answers are exchanged between rows, some are empty or null.\n"
        f"$ {command} {asked}",
        highlight=False,
        soft_wrap=True,
    )
    pipeline.run(
        RunOptions(
            input=str(corpus),
            output=str(output),
            model="demo",
            keep_fraction=_KEEP,
            report_by="planted",
        )
    )
    console.print()
    _print_kinds(console, corpus, output)
    console.print(
        "\nTry next:\n"
        "  # the page that shows what was kept: open it in a browser\n"
        f"  {output}/report.html\n"
        "  # the rows around the cut-off, here\n"
        f"  {command} show {output} --around-cut 3\n"
        "  # another fraction, from the same scores: no model is loaded\n"
        f"  {command} select {corpus} {output}/scores {root}/half --keep-fraction 0.5\n"
        "  # the same again: nothing is left to do\n"
        f"  {command} {asked}\n"
        "  # your own Parquet files, here or in a bucket (s3://...)\n"
        f"  {command} run INPUT OUTPUT --model demo --keep-fraction 0.1",
        highlight=False,
        soft_wrap=True,
    )


def write_corpus(folder: Path) -> None:
    """Writes the demo's corpus as Parquet shards: instruction, input, output, planted.

    The same Python gives the same corpus. `planted` says what was done to a row; the job does
    not look at it.
    """
    pairs = _documented()
    if len(pairs) < _ROWS:
        raise SfRayError(
            f"this Python has docstrings for {len(pairs)} of {_ROWS} demo rows only (is it run "
            "with -OO, or stripped?); use a Python with its documentation"
        )
    rng = random.Random(_SEED)
    pairs = rng.sample(pairs, _ROWS)
    answers: list[str | None] = [answer for _, answer in pairs]
    planted = ["intact"] * _ROWS

    order = rng.sample(range(_ROWS), _ROWS)
    counts = [round(_ROWS * share) for share in (_EXCHANGED, _EMPTY, _NULL)]
    exchanged, empty, null, _ = np.split(np.array(order), np.cumsum(counts))
    # Each takes its neighbour's answer, so that nobody keeps its own.
    for row, other in zip(exchanged, np.roll(exchanged, 1), strict=True):
        answers[row], planted[row] = pairs[other][1], "exchanged"
    for row in empty:
        answers[row], planted[row] = "", "empty"
    for row in null:
        answers[row], planted[row] = None, "null"

    folder.mkdir(parents=True)
    table = pa.table(
        {
            "instruction": [question for question, _ in pairs],
            "input": [""] * _ROWS,
            "output": pa.array(answers, pa.string()),
            "planted": planted,
        }
    )
    size = _ROWS // _SHARDS
    for shard in range(_SHARDS):
        pq.write_table(table.slice(shard * size, size), folder / f"{shard:05d}.parquet")


def _documented() -> list[tuple[str, str]]:
    """(question, docstring) of public functions and classes, each docstring once, sorted."""
    found: dict[str, str] = {}
    for module_name in _MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:  # optional parts of the library, e.g. ssl
            continue
        for name, member in sorted(vars(module).items()):
            if name.startswith("_") or not (inspect.isroutine(member) or inspect.isclass(member)):
                continue
            with warnings.catch_warnings(action="ignore"):  # a look at what is deprecated warns
                text = inspect.getdoc(member)
            # Long enough to be an answer, short enough for the demo's three minutes.
            if text and 60 <= len(text) <= 400 and text not in found:
                what = "class" if inspect.isclass(member) else "function"
                found[text] = f"What does the {what} {module_name}.{name} in Python do?"
    return sorted((question, text) for text, question in found.items())


def _print_kinds(console: Console, corpus: Path, output: Path) -> None:
    """What became of each planted kind, and how well IFD tells exchanged rows from intact ones."""
    scores = ds.dataset(sorted((output / "scores").rglob("*.parquet")), format="parquet")
    by_row = {
        (row["shard"], row["row"]): row
        for row in scores.to_table(columns=["shard", "row", "status", "ifd"]).to_pylist()
    }
    kept: Counter[str] = Counter()
    kinds: dict[str, list[dict[str, object]]] = {}
    for path in sorted(corpus.glob("*.parquet")):
        for number, kind in enumerate(pq.read_table(path)["planted"].to_pylist()):
            kinds.setdefault(kind, []).append(by_row[path.name, number])
        kept.update(pq.read_table(output / "data" / path.name)["planted"].to_pylist())

    table = Table(title="what became of the planted rows", box=None, pad_edge=False)
    for column in ("kind", "rows", "scored", "median IFD", "IFD >= 1", "kept"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    ifd = {}
    for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
        rows = kinds[kind]
        ifd[kind] = np.array([row["ifd"] for row in rows if row["ifd"] is not None], float)
        scored = len(ifd[kind])
        median = f"{np.median(ifd[kind]):.3f}" if scored else ""
        above = f"{int((ifd[kind] >= 1).sum())}" if scored else ""
        table.add_row(kind, f"{len(rows)}", f"{scored}", median, above, f"{kept[kind]}")
    console.print(table)
    higher = ifd["exchanged"][:, None] > ifd["intact"][None, :]
    dropped = (ifd["exchanged"] >= 1).mean()
    console.print(
        f"\nAn exchanged answer has a higher IFD than an intact one in {higher.mean():.0%} of\n"
        f"pairs, but only {dropped:.0%} of them reach 1.0, where the method drops a row. Below it\n"
        "a high IFD is what is kept: IFD alone does not clean a corpus of wrong answers.\n"
        "Rows without a usable answer are never kept.",
        highlight=False,
    )
