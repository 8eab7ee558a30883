"""Facility location against two libraries for it, and in parts on many rows, in one run.

python bench/diversity.py [--embeddings FILE.npy] [--rows 200000] [--repeat 3] [--no-peers]

First, 1,040 of 10,400 rows are chosen by: ours / apricot-select (lazy greedy) / submodlib-py (lazy
greedy, dense; once only, because it is slow). Both libraries compute the cosines themselves. Then a
tenth of --rows is chosen by: ours in parts, also of a quarter of the rows / a random draw / k-means
(the row nearest to each centre). There, the objective f is computed on a sample of 20,000 rows.

Each choice runs in a process of its own with one thread for each core. The process chooses from a
few rows first, so that libraries are loaded and compiled. Times run from embeddings in memory to
the chosen rows; memory is the peak of the whole process.

Without --embeddings ([n, d] float32, norm 1) the rows are synthetic, like embeddings of
instructions: topics and subtopics with Zipf sizes, another spread in each subtopic, a direction
common to all (two rows have a cosine of about 0.25), and one row in a hundred a copy of another.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from sf_ray.selection.diversity.facility_location import EXACT_ROWS, coverage, greedy, objective
from sf_ray.selection.diversity.partition import (
    choose,
    fit_centres,
    nearest,
    ratio_to_exact,
    sample_of,
)

PEERS_ROWS = 10_400
JUDGED_ROWS = 20_000
CHECKED_STEPS = 20
DIMENSIONS = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embeddings", help="[n, d] of norm 1, as numpy.save writes them")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the median is taken")
    parser.add_argument("--no-peers", action="store_true", help="only --rows")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, source, rows, out = options.measure
        measure(name, np.load(source, mmap_mode="r")[: int(rows)].copy(), Path(out))
        return
    with tempfile.TemporaryDirectory() as folder:
        embeddings = np.load(options.embeddings) if options.embeddings else like_text(options.rows)
        embeddings = embeddings[: options.rows]
        source = f"{folder}/embeddings.npy"
        np.save(source, embeddings)
        if not options.no_peers:
            against_peers(embeddings[:PEERS_ROWS], source, options.repeat)
        on_many_rows(embeddings, source, options.repeat)


def like_text(rows: int, seed: int = 0) -> np.ndarray:
    """Synthetic embeddings [rows, 384] of norm 1; the module's docstring describes them."""
    random = np.random.default_rng(seed)

    def directions(count: int) -> np.ndarray:
        drawn = random.standard_normal((count, DIMENSIONS), dtype=np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def zipf(count: int, size: int) -> np.ndarray:
        weights = 1 / np.arange(1, count + 1)
        return random.choice(count, size, p=weights / weights.sum())

    topics, subtopics = 50, 3000
    centres = 0.6 * directions(1) + 0.6 * directions(topics)[zipf(topics, subtopics)]
    centres += 0.6 * directions(subtopics)
    spread = random.uniform(0.3, 1.0, subtopics).astype(np.float32)
    subtopic = zipf(subtopics, rows)
    embeddings = centres[subtopic] + spread[subtopic, None] * directions(rows)
    copies = random.integers(0, rows, (2, rows // 100))
    embeddings[copies[0]] = embeddings[copies[1]]
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def choose_ours(embeddings: np.ndarray, budget: int) -> np.ndarray:
    return choose(embeddings, budget).rows


def choose_apricot(embeddings: np.ndarray, budget: int) -> np.ndarray:
    from apricot import FacilityLocationSelection

    selection = FacilityLocationSelection(budget, metric="cosine", optimizer="lazy")
    return selection.fit(embeddings).ranking


def choose_submodlib(embeddings: np.ndarray, budget: int) -> np.ndarray:
    from submodlib import FacilityLocationFunction

    function = FacilityLocationFunction(
        n=len(embeddings), mode="dense", data=embeddings, metric="cosine"
    )
    chosen = function.maximize(
        budget=budget,
        optimizer="LazyGreedy",
        stopIfZeroGain=False,
        stopIfNegativeGain=False,
        show_progress=False,
    )
    return np.array([row for row, _ in chosen])


def choose_random(embeddings: np.ndarray, budget: int) -> np.ndarray:
    return sample_of(len(embeddings), budget, seed=1)


def choose_kmeans(embeddings: np.ndarray, budget: int) -> np.ndarray:
    """The row nearest to each of `budget` centres, fitted to all rows at once."""
    centres = fit_centres(embeddings, budget, seed=0)
    labels = nearest(embeddings, centres)
    likeness = np.einsum("nd,nd->n", embeddings, centres[labels])
    order = np.lexsort((-likeness, labels))
    return order[np.unique(labels[order], return_index=True)[1]]


CHOOSE = {
    "ours": choose_ours,
    "apricot": choose_apricot,
    "submodlib": choose_submodlib,
    "random": choose_random,
    "k-means": choose_kmeans,
}


def measure(name: str, embeddings: np.ndarray, out: Path) -> None:
    """Chooses a tenth; prints seconds and peak bytes, and saves the rows."""
    CHOOSE[name](embeddings[:500], 50)
    start = perf_counter()
    rows = CHOOSE[name](embeddings, len(embeddings) // 10)
    wall_s = perf_counter() - start
    np.save(out, rows)
    # Not ru_maxrss, which starts at the peak of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"wall_s": wall_s, "peak": int(status["VmHWM"].split()[0]) * 1024}))


def apart(name: str, source: str, rows: int) -> tuple[float, int, np.ndarray]:
    """Measures a choice in a process of its own: seconds, peak bytes, the chosen rows."""
    out = f"{source}.{name}.npy"
    command = [sys.executable, __file__, "--measure", name, source, str(rows), out]
    threads = {
        f"{library}_NUM_THREADS": str(os.cpu_count()) for library in ("OMP", "OPENBLAS", "NUMBA")
    }
    environment = {**os.environ, **threads}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return result["wall_s"], result["peak"], np.load(out)


def against_peers(embeddings: np.ndarray, source: str, repeat: int) -> None:
    n, budget = len(embeddings), len(embeddings) // 10
    times: dict[str, list[float]] = {}
    peaks, reached = {}, {}
    for name in ["ours", "apricot"] * repeat + ["submodlib"]:
        wall_s, peak, rows = apart(name, source, n)
        times.setdefault(name, []).append(wall_s)
        peaks[name], reached[name] = peak, objective(embeddings, rows)
        assert len(rows) == budget
    exact = greedy(embeddings, budget)
    print(f"{n} rows choose {budget}, {os.cpu_count()} cores; f over that of exact greedy")
    print(
        f"our gains over the largest possible, worst step: {worst_step(embeddings, exact.rows):f}"
    )
    print(f"{'':12}{'f':>10}{'s':>9}{'GiB':>7}  ours takes, of its time and memory")
    for name in times:
        wall_s = median(times[name])
        print(
            f"{name:12}{reached[name] / objective(embeddings, exact.rows):10.5f}{wall_s:9.2f}"
            f"{peaks[name] / 2**30:7.2f}  {median(times['ours']) / wall_s:.2f}"
            f"  {peaks['ours'] / peaks[name]:.2f}"
        )


def worst_step(embeddings: np.ndarray, rows: np.ndarray) -> float:
    """Least ratio of a chosen row's gain to the largest gain of any row.

    The gains are computed from scratch, at some of the steps.
    """
    worst = 1.0
    for step in np.linspace(0, len(rows) - 1, CHECKED_STEPS).astype(int):
        best = coverage(embeddings, embeddings[rows[:step]])
        gains = [
            np.maximum(embeddings[first : first + 1000] @ embeddings.T - best, 0).sum(axis=1)
            for first in range(0, len(embeddings), 1000)
        ]
        largest = np.concatenate(gains)
        worst = min(worst, float(largest[rows[step]] / largest.max()))
    return worst


def on_many_rows(embeddings: np.ndarray, source: str, repeat: int) -> None:
    n = len(embeddings)
    # In turns, so that a busy minute slows both.
    whole, quarter = zip(
        *((apart("ours", source, n), apart("ours", source, n // 4)[0]) for _ in range(repeat)),
        strict=True,
    )
    runs = {name: [apart(name, source, n)] for name in ("k-means", "random")}
    judged = embeddings[sample_of(n, JUDGED_ROWS, seed=2)]
    print(f"\n{n} rows choose {n // 10}; f over that of ours, on {len(judged)} of all rows")
    print(f"{'':12}{'f':>10}{'s':>9}{'GiB':>7}{'rows':>8}")
    reached: dict[str, float] = {}
    for name, each in {"ours": whole, **runs}.items():
        _, peak, rows = each[-1]
        reached[name] = float(coverage(judged, embeddings[rows]).sum(dtype=np.float64))
        print(
            f"{name:12}{reached[name] / reached['ours']:10.5f}"
            f"{median(run[0] for run in each):9.2f}{peak / 2**30:7.2f}{len(rows):8}"
        )
    times = median(run[0] for run in whole) / median(quarter)
    print(f"ours: {times:.2f} times as long as for {n // 4} rows")
    ratio = ratio_to_exact(embeddings[sample_of(n, EXACT_ROWS, 0)], n, n // 10)
    print(f"ours: f over that of exact greedy, on a sample of {EXACT_ROWS} rows: {ratio:.4f}")


if __name__ == "__main__":
    main()
