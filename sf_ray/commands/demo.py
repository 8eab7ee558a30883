"""`sf-ray demo`: the whole job on a small corpus of which it is known what is wrong with each row.

The corpus is made of the docstrings of Python's own library, so that nothing need be downloaded.
"""

import importlib
import inspect
import random
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

from sf_ray.commands import pipeline
from sf_ray.config.options import DemoOptions
from sf_ray.config.selection_options import RunOptions
from sf_ray.engine.model_files import demo_weights
from sf_ray.errors import SfRayError
from sf_ray.runtime.console import SafeConsole

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
# Shares of the rows that are damaged, and how.
_EXCHANGED, _EMPTY, _NULL = 0.15, 0.03, 0.02
_KEEP = 0.25


def demo(options: DemoOptions) -> None:
    """Makes the corpus, runs `sf-ray run` on it and prints what became of each kind of row.

    Raises:
        SfRayError: The model is not installed; has the command that installs it.
    """
    demo_weights()  # before anything is written
    root = Path(options.output).absolute()
    corpus, output = root / "corpus", root / "output"
    if not corpus.exists():
        write_corpus(corpus)
    console = SafeConsole()
    # A command that works when typed here, also where the environment is not activated.
    command = "sf-ray" if shutil.which("sf-ray") else sys.argv[0]
    asked = f"run {corpus} {output} --model demo --keep-fraction {_KEEP} --report-by planted"
    console.print(
        f"{_ROWS} questions about Python's library, answered by its docstrings, in {corpus}/;\n"
        f"{_EXCHANGED:.0%} of the answers are exchanged between rows, some are empty or null.\n"
        f"$ {command} {asked}",
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
    _print_outcome(console, _outcomes(corpus, output))
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
        soft_wrap=True,
    )


def write_corpus(folder: Path) -> None:
    """Writes the demo's corpus as Parquet shards: instruction, input, output, planted.

    The same Python gives the same corpus. `planted` says what was done to a row; it does not
    influence scores or selection.

    Raises:
        SfRayError: This Python has too few docstrings.
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
    # Each row takes the answer of its neighbour, so that none keeps its own.
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
    questions: dict[str, str] = {}  # by docstring
    for module_name in _MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:  # optional parts of the library, e.g. ssl
            continue
        for name, member in sorted(vars(module).items()):
            if name.startswith("_") or not (inspect.isroutine(member) or inspect.isclass(member)):
                continue
            with warnings.catch_warnings(action="ignore"):  # deprecated members warn when read
                text = inspect.getdoc(member)
            # Long enough to be an answer, short enough for the demo's three minutes.
            if text and 60 <= len(text) <= 400 and text not in questions:
                what = "class" if inspect.isclass(member) else "function"
                questions[text] = f"What does the {what} {module_name}.{name} in Python do?"
    return sorted((question, text) for text, question in questions.items())


@dataclass
class _Outcome:
    """What became of the rows of one planted kind.

    Attributes:
        ifd: IFD of each row, or None where it has none.
        kept: Rows that were kept.
    """

    ifd: list[float | None]
    kept: int = 0

    @property
    def scored(self) -> NDArray[np.float64]:
        """IFD of the rows that have one."""
        return np.array([ifd for ifd in self.ifd if ifd is not None], float)


def _outcomes(corpus: Path, output: Path) -> dict[str, _Outcome]:
    """Planted kind -> what became of its rows; the most frequent kind first."""
    scores = ds.dataset(sorted((output / "scores").rglob("*.parquet")), format="parquet")
    ifd_by_row = {
        (row["shard"], row["row"]): row["ifd"]
        for row in scores.to_table(columns=["shard", "row", "ifd"]).to_pylist()
    }
    outcomes: dict[str, _Outcome] = {}
    for shard in sorted(corpus.glob("*.parquet")):
        for row, kind in enumerate(pq.read_table(shard)["planted"].to_pylist()):
            outcomes.setdefault(kind, _Outcome([])).ifd.append(ifd_by_row[shard.name, row])
        for kind in pq.read_table(output / "data" / shard.name)["planted"].to_pylist():
            outcomes[kind].kept += 1
    return dict(sorted(outcomes.items(), key=lambda item: -len(item[1].ifd)))


def _print_outcome(console: SafeConsole, outcomes: dict[str, _Outcome]) -> None:
    """Prints a table of the kinds, and how well IFD separates exchanged rows from intact ones."""
    table = Table(title="what became of the planted rows", box=None, pad_edge=False)
    for column in ("kind", "rows", "scored", "median IFD", "IFD >= 1", "kept"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind, outcome in outcomes.items():
        ifd = outcome.scored
        median = f"{np.median(ifd):.3f}" if len(ifd) else ""
        above = f"{int((ifd >= 1).sum())}" if len(ifd) else ""
        table.add_row(kind, f"{len(outcome.ifd)}", f"{len(ifd)}", median, above, f"{outcome.kept}")
    console.print(table)
    exchanged, intact = outcomes["exchanged"].scored, outcomes["intact"].scored
    higher = exchanged[:, None] > intact[None, :]
    dropped = (exchanged >= 1).mean()
    console.print(
        f"\nAn exchanged answer has a higher IFD than an intact one in {higher.mean():.0%} of\n"
        f"pairs, but only {dropped:.0%} of them reach 1.0, where the method drops a row. Below it\n"
        "a high IFD is what is kept: IFD alone does not clean a corpus of wrong answers.\n"
        "Rows without a usable answer are never kept.",
    )
