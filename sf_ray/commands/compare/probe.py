"""`sf-ray probe`: which of some models is the fastest that selects like the strongest of them.

A sample of the corpus is scored with each model, on one actor at a time, as a run would score it;
the scores are compared as `sf-ray compare` does. Knows neither how rows are encoded nor how scores
are compared.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa

from sf_ray.commands.compare.consistency import Consistency
from sf_ray.commands.compare.join import compare_sets
from sf_ray.commands.compare.probe_sample import keep_scores, read_segments
from sf_ray.commands.compare.tables import number, percent
from sf_ray.commands.model_actor import ModelActor, model_actor
from sf_ray.commands.setup import (
    ScoringSpec,
    Specs,
    check_places,
    find_encoding,
    join_cluster,
    list_corpus,
    location_of,
    scoring_spec_of,
)
from sf_ray.config.options import ProbeOptions, ScoringOptions, ScoringSpecOptions
from sf_ray.corpus.plan_cache import sample_of
from sf_ray.corpus.planning import SkippedShard
from sf_ray.corpus.sampling import Segment
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.errors import SfRayError
from sf_ray.output.report.terminal import TextTable, print_tables
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.log import say
from sf_ray.runtime.signals import stoppable
from sf_ray.scoring.bad_rows import check_bad_rows
from sf_ray.scoring.score_set import SAMPLE, ScoreSet, describe, score_set_of
from sf_ray.storage.location import Location

if TYPE_CHECKING:
    from sf_ray.scoring.unit_scorer import UnitScorer

# Rows that are scored before the clock starts: a first batch pays for what later ones find done.
_WARM_UP_ROWS = 16


@dataclass(frozen=True)
class Candidate:
    """One of the models, and where its scores of the sample go."""

    name: str
    spec: ScoringSpec
    score_set: ScoreSet


@dataclass(frozen=True)
class Probed:
    """What a model did with the sample.

    Attributes:
        name: The model's.
        rows_s: Rows a second.
        consistency: With the strongest model.
    """

    name: str
    rows_s: float
    consistency: Consistency


def probe(
    options: ProbeOptions,
    specs: Specs = Specs(),  # noqa: B008 - frozen
) -> tuple[SkippedShard, ...]:
    """Scores a sample with several models, says which to use; returns the shards left out."""
    check_places(options, options.scores, None)
    with stoppable(), _place_for_scores(options) as scores:
        corpus, _ = list_corpus(options, None, {})
        shown = sample_of(scores, corpus)
        # Not those of a run over the whole corpus.
        sample = {"rows": options.sample, "seed": options.seed, "corpus": corpus.fingerprint}
        candidates = []
        for scoring in _scoring_options(options):
            encoding = find_encoding(scoring, corpus, shown, specs)
            join_cluster(scoring, encoding)
            spec = scoring_spec_of(scoring, encoding, specs)
            score_set = score_set_of(scores, spec.identity | {SAMPLE: sample})
            name = Location(scoring.model).public_uri
            candidates.append(Candidate(name, spec, score_set))
        stretches = read_segments(
            corpus,
            candidates[0].spec.encoding.columns,
            options.sample,
            options.seed,
            options.on_bad_shard == "skip",
            options.on_bad_line == "skip",
        )
        rows_s = _score_all(options, candidates, stretches)
        probed = _compared(options, candidates, rows_s)
    _print(options, probed, sum(stretch.unit.rows for stretch in stretches))
    return corpus.skipped


@contextmanager
def _place_for_scores(options: ProbeOptions) -> Iterator[Location]:
    """Where the scores of the sample go: they stay where the user says, or nowhere."""
    if options.scores is not None:
        yield location_of(options, options.scores)
        return
    with tempfile.TemporaryDirectory(prefix="sf_ray-probe-") as folder:
        yield Location(folder)


def _scoring_options(options: ProbeOptions) -> list[ScoringOptions]:
    """Those of a run with each model."""
    same = {name: getattr(options, name) for name in ScoringSpecOptions.model_fields}
    return [ScoringOptions(**same, model=name) for name in options.models]


def _scored(scorer: "UnitScorer", pools: Sequence[pa.Table]) -> tuple[pa.Table, float]:
    """Encoded rows, in pools -> the score table of all of them, and the seconds it took."""
    scorer.begin("", 0, pools[0].slice(0, _WARM_UP_ROWS)).result()
    start = perf_counter()
    tables = [scorer.begin("", 0, pool).result() for pool in pools]
    return pa.concat_tables(tables), perf_counter() - start


@contextmanager
def _loaded(options: ProbeOptions, candidate: Candidate) -> Iterator[ModelActor]:
    """An actor with the model loaded.

    Raises:
        SfRayError: The model cannot be loaded or used, or there is no room for it; names it.
    """
    engine = candidate.spec.engine
    pool = ActorPool.of(options, engine.device, units=1)
    try:
        with model_actor(replace(engine, threads=pool.threads), pool, options.stall_s) as actor:
            yield actor
    except SfRayError as error:
        raise SfRayError(f"--models {candidate.name}: {error}") from error


def _score_all(
    options: ProbeOptions, candidates: Sequence[Candidate], stretches: Sequence[Segment]
) -> list[float]:
    """Scores the sample with each model and keeps the scores; returns the rows/s of each."""
    # One that fails to load shall not cost the work of those before it. The first is loaded next.
    for candidate in candidates[1:]:
        say(f"trying to load {candidate.name}")
        with _loaded(options, candidate):
            pass
    rows_s = []
    for candidate in candidates:
        pools = _encoded(candidate.spec.encoding, stretches, options.unit_rows)
        rows = sum(pool.num_rows for pool in pools)
        with _loaded(options, candidate) as actor:
            for note in actor.notes:
                say(f"note: {candidate.name}: {note}")
            say(f"scoring {rows:,} rows with {candidate.name}")
            table, seconds = actor.call(_scored, pools)
        check_bad_rows(stretches, table, options.max_bad_fraction)
        describe(candidate.score_set, candidate.name)
        keep_scores(candidate.score_set, stretches, table)
        rows_s.append(rows / seconds)
    return rows_s


def _encoded(
    encoding: EncodingSpec, stretches: Sequence[Segment], unit_rows: int
) -> list[pa.Table]:
    """The sample as token ids, in pools of as many rows as a run scores together."""
    encoded = pa.concat_tables(
        encoding.encode(one.rows, one.shard.file.relative, one.unit.start) for one in stretches
    ).combine_chunks()
    starts = range(0, encoded.num_rows, unit_rows)
    return [encoded.slice(start, unit_rows) for start in starts]


def _compared(
    options: ProbeOptions, candidates: Sequence[Candidate], rows_s: Sequence[float]
) -> list[Probed]:
    """Holds each model against the last one; that one too, with which it agrees."""
    strongest, probed = candidates[-1], []
    for candidate, rate in zip(candidates, rows_s, strict=True):
        found = compare_sets(
            candidate.score_set, strongest.score_set, [options.keep_fraction], options.max_ifd
        ).consistency
        if not found.rows:
            raise SfRayError(
                f"{candidate.name} and {strongest.name}: the sample has no row that both can "
                "score; keep its scores with --scores and look at the statuses there"
            )
        probed.append(Probed(candidate.name, rate, found))
    return probed


def _print(options: ProbeOptions, probed: Sequence[Probed], rows: int) -> None:
    """The table, and which model to use."""
    strongest = probed[-1]
    columns = ("model", "rows/s", "speed", "both ok", "IFD rank", "overlap")
    title = (
        f"{rows:,} rows: rank correlation of IFD and overlap of the best "
        f"{percent(options.keep_fraction)} with {strongest.name}"
    )
    lines = [
        (
            one.name,
            f"{one.rows_s:,.2f}",
            f"{one.rows_s / strongest.rows_s:.2f}x",
            f"{one.consistency.rows:,}",
            number(one.consistency.ifd),
            number(one.consistency.overlaps[0].share),
        )
        for one in probed
    ]
    print_tables([TextTable(title, columns, lines)])
    alike = [
        one
        for one in probed[:-1]
        if one.consistency.overlaps[0].share >= options.want_overlap
        and one.rows_s > strongest.rows_s
    ]
    wanted = f"an overlap of at least {options.want_overlap:g} with {strongest.name}"
    if alike:
        fastest = max(alike, key=lambda one: one.rows_s)
        print(f"\nthe fastest model with {wanted} is {fastest.name}")
    else:
        print(f"\nno faster model has {wanted}")
