"""`sf-ray probe`: which of some models is the fastest that selects like the strongest of them.

Scores a sample of the corpus with each model, on one actor at a time, as a run would score it; then
compares the scores as `sf-ray compare` does.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from sf_ray.commands.compare.consistency import Consistency
from sf_ray.commands.compare.join import compare_sets
from sf_ray.commands.compare.probe_sample import keep_scores, read_segments
from sf_ray.commands.compare.tables import number, percent
from sf_ray.commands.locations import location_of
from sf_ray.commands.model_actor import ModelActor, model_actor
from sf_ray.commands.setup import (
    ScoringSpec,
    Specs,
    check_places,
    find_encoding,
    join_cluster,
    list_corpus,
    scoring_spec_of,
)
from sf_ray.commands.shared_places import Places, check_shared, model_files
from sf_ray.commands.usable import usable_shards
from sf_ray.config.options import ProbeOptions, ScoringOptions, ScoringSpecOptions
from sf_ray.corpus.plan_cache import Sample, sample_of
from sf_ray.corpus.planning import Corpus, SkippedShards
from sf_ray.corpus.sampling import Segment
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.errors import SfRayError
from sf_ray.output.report.text_table import TextTable, print_tables
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.console import emit
from sf_ray.runtime.log import say
from sf_ray.runtime.signals import stoppable
from sf_ray.scoring.bad_rows import check_bad_rows
from sf_ray.scoring.score_set import SAMPLE, ScoreSet, describe, score_set_of
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable

if TYPE_CHECKING:
    from sf_ray.scoring.unit_scorer import UnitScorer

# Rows that are scored before the clock starts: a first batch pays for what later batches find done.
_WARM_UP_ROWS = 16


@dataclass(frozen=True)
class Candidate:
    """One of the models.

    Attributes:
        name: The name by which the user gave it.
        spec: All that decides its scores.
        score_set: Where its scores of the sample go.
    """

    name: str
    spec: ScoringSpec
    score_set: ScoreSet


@dataclass(frozen=True)
class ProbeResult:
    """What a model made of the sample.

    Attributes:
        name: Name of the model.
        rows_per_s: Rows that one actor scores in a second.
        consistency: How alike this model and the strongest one score the sample.
    """

    name: str
    rows_per_s: float
    consistency: Consistency

    @property
    def overlap(self) -> float:
        """Share of the best rows that this model and the strongest one both select."""
        return self.consistency.overlaps[0].share


def probe(options: ProbeOptions, specs: Specs = Specs()) -> SkippedShards:  # noqa: B008 - frozen
    """Scores a sample with several models, says which to use; returns the shards left out."""
    check_places(options, options.scores, None)
    with stoppable(), _place_for_scores(options) as scores:
        corpus, _ = list_corpus(options, None, {})
        candidates = _candidates(options, corpus, sample_of(scores, corpus), scores, specs)
        # Only the models are read on other nodes: this process reads the corpus and keeps scores.
        models = [model_files("--models", name) for name in options.models]
        check_shared(Places({key: paths for files in models for key, paths in files.items()}))
        corpus = usable_shards(options, corpus, candidates[0].spec.encoding.format)
        segments = read_segments(
            corpus,
            candidates[0].spec.encoding.columns,
            options.sample,
            options.seed,
            options.on_bad_shard == "skip",
            options.on_bad_line == "skip",
        )
        rows_per_s = _score_all(options, candidates, segments)
        results = _compared(options, candidates, rows_per_s)
    _print(options, results, sum(segment.unit.rows for segment in segments))
    return corpus.skipped


@contextmanager
def _place_for_scores(options: ProbeOptions) -> Iterator[Location]:
    """Where the scores of the sample go: where the user says, or a folder that is then removed."""
    if options.scores is not None:
        yield location_of(options, options.scores)
        return
    with tempfile.TemporaryDirectory(prefix="sf_ray-probe-") as folder:
        yield Location(folder)


def _candidates(
    options: ProbeOptions, corpus: Corpus, first_rows: Sample, scores: Location, specs: Specs
) -> list[Candidate]:
    # Part of the identity, so that scores of a sample are never taken for those of the corpus.
    sample = {"rows": options.sample, "seed": options.seed, "corpus": corpus.fingerprint}
    candidates = []
    for scoring in _scoring_options(options):
        encoding = find_encoding(scoring, corpus, first_rows, specs)
        join_cluster(scoring, encoding)
        spec = scoring_spec_of(scoring, encoding, specs)
        score_set = score_set_of(scores, spec.identity | {SAMPLE: sample})
        candidates.append(Candidate(Location(scoring.model).public_uri, spec, score_set))
    return candidates


def _scoring_options(options: ProbeOptions) -> list[ScoringOptions]:
    """The options of a run with each model."""
    shared = {name: getattr(options, name) for name in ScoringSpecOptions.model_fields}
    return [ScoringOptions(**shared, model=name) for name in options.models]


def _score_all(
    options: ProbeOptions, candidates: Sequence[Candidate], segments: Sequence[Segment]
) -> list[float]:
    """Scores the sample with each model and keeps the scores; returns the rows/s of each."""
    # Every model is loaded once before any scores, so that a model which fails to load does not
    # cost the work of those before it. The first one needs no try: it is loaded next.
    for candidate in candidates[1:]:
        say(f"trying to load {candidate.name}")
        with _loaded(options, candidate):
            pass
    rows_per_s = []
    for candidate in candidates:
        pools = _encoded(candidate.spec.encoding, segments, options.unit_rows)
        rows = sum(pool.num_rows for pool in pools)
        with _loaded(options, candidate) as actor:
            for note in actor.notes:
                say(f"note: {candidate.name}: {note}")
            say(f"scoring {rows:,} rows with {candidate.name}")
            scored = actor.call(_score, pools)
        check_bad_rows(segments, scored.table, options.max_bad_fraction)
        describe(candidate.score_set, candidate.name)
        keep_scores(candidate.score_set, segments, scored.table)
        rows_per_s.append(rows / scored.seconds)
    return rows_per_s


@contextmanager
def _loaded(options: ProbeOptions, candidate: Candidate) -> Iterator[ModelActor]:
    """Starts an actor that has loaded the model of a candidate.

    Raises:
        SfRayError: The model cannot be loaded or used, or there is no room for it; names the model.
    """
    engine = candidate.spec.engine
    pool = ActorPool.of(options, engine.device, units=1)
    try:
        with model_actor(replace(engine, threads=pool.threads), pool, options.stall_s) as actor:
            yield actor
    except SfRayError as error:
        raise SfRayError(f"--models {candidate.name}: {error}") from error


def _encoded(encoding: EncodingSpec, segments: Sequence[Segment], unit_rows: int) -> list[pa.Table]:
    """Encodes the sample, in pools of as many rows as a run scores together."""
    encoded = pa.concat_tables(
        encoding.encode(segment.rows, segment.shard.file.relative, segment.unit.start)
        for segment in segments
    ).combine_chunks()
    starts = range(0, encoded.num_rows, unit_rows)
    return [encoded.slice(start, unit_rows) for start in starts]


class _ScoredSample(NamedTuple):
    """What the actor sends back: the score table of all rows, and the seconds that it took."""

    table: pa.Table
    seconds: float


def _score(scorer: "UnitScorer", pools: Sequence[pa.Table]) -> _ScoredSample:
    """Scores pools of encoded rows one after another; runs in the actor."""
    scorer.begin("", 0, pools[0].slice(0, _WARM_UP_ROWS)).result()
    start = perf_counter()
    tables = [scorer.begin("", 0, pool).result() for pool in pools]
    return _ScoredSample(pa.concat_tables(tables), perf_counter() - start)


def _compared(
    options: ProbeOptions, candidates: Sequence[Candidate], rows_per_s: Sequence[float]
) -> list[ProbeResult]:
    """Compares each model with the last one, the strongest; that one too, with itself.

    Raises:
        SfRayError: The two models have a score of no common row.
    """
    strongest, results = candidates[-1], []
    for candidate, rate in zip(candidates, rows_per_s, strict=True):
        consistency = compare_sets(
            candidate.score_set, strongest.score_set, [options.keep_fraction], options.max_ifd
        ).consistency
        if not consistency.rows:
            raise SfRayError(
                f"{candidate.name} and {strongest.name}: the sample has no row that both can "
                "score; keep its scores with --scores and look at the statuses there"
            )
        results.append(ProbeResult(candidate.name, rate, consistency))
    return results


def _print(options: ProbeOptions, results: Sequence[ProbeResult], rows: int) -> None:
    """Prints the table, and which model to use."""
    strongest = results[-1]
    columns = ("model", "rows/s", "speed", "both ok", "IFD rank", "overlap")
    title = (
        f"{rows:,} rows: rank correlation of IFD and overlap of the best "
        f"{percent(options.keep_fraction)} with {strongest.name}"
    )
    lines = [
        (
            result.name,
            f"{result.rows_per_s:,.2f}",
            f"{result.rows_per_s / strongest.rows_per_s:.2f}x",
            f"{result.consistency.rows:,}",
            number(result.consistency.ifd),
            number(result.overlap),
        )
        for result in results
    ]
    print_tables([TextTable(title, columns, lines)])
    alike_and_faster = [
        result
        for result in results[:-1]
        if result.overlap >= options.want_overlap and result.rows_per_s > strongest.rows_per_s
    ]
    wanted = f"an overlap of at least {options.want_overlap:g} with {printable(strongest.name)}"
    if alike_and_faster:
        fastest = max(alike_and_faster, key=lambda result: result.rows_per_s)
        emit(f"\nthe fastest model with {wanted} is {printable(fastest.name)}")
    else:
        emit(f"\nno faster model has {wanted}")
