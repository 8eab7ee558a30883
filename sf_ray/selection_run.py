"""Selecting and writing on a cluster: scores -> cut-off -> filtered shards, and the manifest."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from sf_ray.config import SelectionOptions
from sf_ray.console import say, timed
from sf_ray.errors import BadShardError
from sf_ray.formats import resolve_format
from sf_ray.locations import Location
from sf_ray.output import Output
from sf_ray.pieces import read_ifd
from sf_ray.planning import Corpus
from sf_ray.ranking import Ranking, rank
from sf_ray.report import manifest_of, print_manifest
from sf_ray.rubbish import check_bad_fraction
from sf_ray.score_sets import ScoreSet, ShardUnits, digest, mark_bad, share_shards
from sf_ray.scoring_run import Scored
from sf_ray.selection import Candidates, Cutoff, rows_to_keep
from sf_ray.storage import map_requests
from sf_ray.tasks import parallel_map
from sf_ray.units import Shard, Unit
from sf_ray.writing import WrittenShard, write_shard

# Small shards of one task that wait for storage together.
_WRITES_AT_ONCE = 8

WallTimes = dict[str, float]


def is_done(options: SelectionOptions, corpus: Corpus, score_set: ScoreSet) -> bool:
    """Whether the output answers this very request; then says so and what is in it."""
    output = _output(options)
    manifest = output.finished(_request_id(options, corpus, score_set))
    if manifest is not None:
        say("nothing to do: the output is there, whole, and of this very request")
        print_manifest(manifest, output.location)
    return manifest is not None


def select_and_write(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    scored: Scored,
    wall_s: WallTimes,
) -> Corpus:
    """Finds the cut-off, writes the filtered shards and, last of all, the manifest.

    Returns:
        The corpus without the shards that turned out to be bad.
    """
    output = _output(options)
    while True:
        with timed("select", wall_s):
            ranking = _rank(options, corpus, score_set)
        with timed("write", wall_s):
            output.begin(shard.file.relative for shard in corpus.shards)
            write = functools.partial(
                _write,
                corpus.location,
                score_set.pieces,
                ranking.cutoff,
                output.data,
                options.ifd_column,
                options.on_bad_shard == "skip",
            )
            tasks = share_shards(score_set.units(corpus))
            done = parallel_map(write, tasks, options.stall_s)
            written = [shard for shards in done for shard in shards]
        if len(written) == len(corpus.shards):
            break
        known, corpus = corpus.skipped, corpus.without(score_set.bad_shards())
        for shard in corpus.skipped:
            if shard not in known:
                say(f"note: skipping shard {shard.relative}: {shard.reason}; selecting again")
    manifest = manifest_of(
        request_id=_request_id(options, corpus, score_set),
        corpus=corpus,
        score_set=score_set,
        scored=scored,
        options=options,
        ranking=ranking,
        written=written,
        wall_s=wall_s,
    )
    output.finish(manifest)
    print_manifest(manifest, output.location)
    return corpus


def _output(options: SelectionOptions) -> Output:
    return Output(Location(options.output, options.storage_options, options.storage_retry_s))


def _request_id(options: SelectionOptions, corpus: Corpus, score_set: ScoreSet) -> str:
    asked: dict[str, Any] = options.model_dump(
        include={"keep_fraction", "keep_count", "min_ifd", "max_ifd", "ifd_column"}
    )
    return digest([corpus.fingerprint, score_set.scoring_id, asked])


def _rank(options: SelectionOptions, corpus: Corpus, score_set: ScoreSet) -> Ranking:
    wanted = rows_to_keep(corpus.rows, options.keep_fraction, options.keep_count)
    candidates = Candidates.between(options.min_ifd, options.max_ifd, corpus.rows)
    units = score_set.units(corpus)
    ranking = rank(score_set.pieces, units, candidates, wanted, options.stall_s)
    identity = score_set.identity
    columns = identity["columns"]
    row_format = resolve_format(list(columns.values()), identity["format"], columns)
    check_bad_fraction(
        corpus, row_format, ranking.status_counts, ranking.bad, options.max_bad_fraction
    )
    return ranking


def _write(
    corpus: Location,
    scores: Location,
    cutoff: Cutoff | None,
    data: Location,
    ifd_column: str,
    skip_bad: bool,
    shards: ShardUnits,
) -> list[WrittenShard]:
    """Writes some filtered shards; a bad one is left out, which a mark then says."""

    def write(place: tuple[Shard, Sequence[Unit]]) -> WrittenShard | None:
        shard, units = place
        pieces = list(read_ifd(scores, [(shard, unit) for unit in units]))
        ifd = np.concatenate(pieces) if pieces else np.empty(0)
        keep = np.zeros(shard.rows, dtype=bool)
        if cutoff is not None:
            keep = cutoff.keeps(ifd, shard.position + np.arange(shard.rows))
        try:
            return write_shard(corpus, shard, ifd, keep, data, ifd_column)
        except BadShardError as error:
            if not skip_bad:
                raise
            mark_bad(scores, shard.stem, error.reason)
            return None

    return [shard for shard in map_requests(data, write, shards, _WRITES_AT_ONCE) if shard]
