"""The whole job: plan, score, select, write, report. Every step may be repeated without harm."""

import functools
import hashlib
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import ray

from sf_ray.config import RunOptions, ScoreOptions, ScoringOptions, SelectionOptions, SelectOptions
from sf_ray.encoding import Encoder
from sf_ray.errors import SfRayError, UsageError
from sf_ray.examples import Format, resolve_format
from sf_ray.models import Model, context_window, load_tokenizer, resolve_model
from sf_ray.output import Output
from sf_ray.planning import (
    Corpus,
    Shard,
    Unit,
    check_text_columns,
    group_reads,
    plan_corpus,
    units_of,
)
from sf_ray.progress import ScoringProgress, duration
from sf_ray.ranking import rank
from sf_ray.report import manifest_of, print_manifest, print_scores_summary
from sf_ray.selection import Candidates, Cutoff, rows_to_keep
from sf_ray.stages import (
    ActorPool,
    EncodeRules,
    EngineRules,
    ModelSpec,
    parallel_map,
    scoring_dataset,
    write_pieces,
)
from sf_ray.storage import Location, list_files, overlap, put_bytes, read_bytes_or_none
from sf_ray.writing import WrittenShard, read_scores, write_shard

# Raised when the same tokens would get other scores; scores of another version are not reused.
_SCORING_VERSION = 1

ShardUnits = Sequence[tuple[Shard, Sequence[Unit]]]


@dataclass(frozen=True)
class ScoreSet:
    """Scores of one identity: where they lie and what decided them."""

    location: Location
    scoring_id: str
    identity: dict[str, Any]

    @property
    def pieces(self) -> Location:
        """Folder of this identity's pieces."""
        return self.location.join(self.scoring_id)


def run(options: RunOptions) -> None:
    """Scores a corpus, selects the best rows and writes them."""
    with _timed("plan") as wall_s:
        corpus = _plan(options, options.output, options.scores)
        _check_ifd_column(corpus, options.ifd_column)
    scores = options.scores or f"{options.output.rstrip('/')}/scores"
    score_set, units, scored = _score(options, corpus, scores, wall_s)
    _select(options, corpus, score_set, units, scored, wall_s)


def score(options: ScoreOptions) -> None:
    """Scores a corpus; units that have scores are not scored again."""
    with _timed("plan") as wall_s:
        corpus = _plan(options, options.scores)
    score_set, units, _ = _score(options, corpus, options.scores, wall_s)
    pieces = sum(len(shard_units) for _, shard_units in units)
    print_scores_summary(score_set.location, score_set.scoring_id, corpus.rows, pieces)


def select(options: SelectOptions) -> None:
    """Selects from existing scores and writes; loads no model."""
    with _timed("plan") as wall_s:
        corpus = _plan(options, options.output, options.scores)
        _check_ifd_column(corpus, options.ifd_column)
        location = Location(options.scores, options.storage_options)
        score_set = _existing_scores(location, options.scoring_id)
        units = _units(corpus, score_set.identity["unit_rows"])
        missing = sum(len(shard_units) for _, shard_units in _missing(score_set, units))
    if missing:
        total = sum(len(shard_units) for _, shard_units in units)
        raise SfRayError(
            f"{score_set.pieces.public_uri}: {missing} of {total} units of "
            f"{corpus.location.public_uri} have no scores; finish them with `sf-ray score` first"
        )
    _start_ray(options.ray_address)
    _select(options, corpus, score_set, units, 0, wall_s)


# Plan


def _plan(options: ScoringOptions | SelectionOptions, *others: str | None) -> Corpus:
    corpus = Location(options.input, options.storage_options)
    for other in filter(None, others):
        if overlap(corpus, Location(other, options.storage_options)):
            raise UsageError(
                f"INPUT {corpus.public_uri} and {Location(other).public_uri} lie inside each "
                "other; the input is never written to: choose another place for the output"
            )
    planned = plan_corpus(corpus)
    size_mb = planned.bytes / 1e6
    _say(f"plan: {len(planned.shards):,} shards, {planned.rows:,} rows, {size_mb:,.1f} MB")
    return planned


def _check_ifd_column(corpus: Corpus, name: str) -> None:
    if name in corpus.schema.names:
        raise UsageError(
            f"the corpus has a column {name!r} already; name the added one with --ifd-column"
        )


def _units(corpus: Corpus, unit_rows: int) -> ShardUnits:
    return [(shard, units_of(shard.row_groups, unit_rows)) for shard in corpus.shards]


def _missing(scores: ScoreSet, units: ShardUnits) -> ShardUnits:
    """The units without a piece, as one listing tells."""
    pieces = {file.relative for file in list_files(scores.pieces)}
    missing = [
        (shard, [unit for unit in shard_units if shard.piece(unit) not in pieces])
        for shard, shard_units in units
    ]
    return [(shard, shard_units) for shard, shard_units in missing if shard_units]


# Score


def _score(
    options: ScoringOptions, corpus: Corpus, scores: str, wall_s: dict[str, float]
) -> tuple[ScoreSet, ShardUnits, int]:
    """Scores what has no scores yet; returns them all, and how many units were scored now."""
    with _timed("prepare", wall_s):
        row_format = resolve_format(corpus.schema.names, options.format, options.columns)
        check_text_columns(corpus, row_format.columns.values())
        model = resolve_model(options.model, options.storage_options)
        _check_model(model, options)
        # The driver needs the model's name and hash only; actors load it where they run.
        _start_ray(options.ray_address)
        device = options.device
        if device == "auto":
            device = "cuda" if ray.cluster_resources().get("GPU") else "cpu"
        elif device == "cuda" and not ray.cluster_resources().get("GPU"):
            _say("note: the cluster has no GPU now; the scoring actors wait until it has one")
        score_set = _score_set(
            options, row_format, model, device, Location(scores, options.storage_options)
        )
        units = _units(corpus, options.unit_rows)
        todo = _missing(score_set, units)
    total, left = (sum(len(u) for _, u in some) for some in (units, todo))
    _say(
        f"format {row_format.name}, model {_public_name(options)}, "
        f"{score_set.identity['dtype']} on {device}: {total:,} units, "
        f"{total - left:,} have scores, {left:,} to score"
    )
    if todo:
        with _timed("score", wall_s):
            _score_units(options, corpus, row_format, model, device, score_set, todo)
    return score_set, units, left


def _check_model(model: Model, options: ScoringOptions) -> None:
    tokenizer = load_tokenizer(model, options.trust_remote_code)
    Encoder(tokenizer, options.max_length, options.alignment)
    window = context_window(model)
    if window is not None and options.max_length > window:
        raise UsageError(
            f"--max-length {options.max_length} exceeds the window of {_public_name(options)}, "
            f"{window} tokens; give --max-length {window} or less"
        )


def _score_set(
    options: ScoringOptions, row_format: Format, model: Model, device: str, location: Location
) -> ScoreSet:
    # torch is a matter of a second here, and of nothing in a run without new units.
    from sf_ray.engine import resolve_dtype

    identity = {
        "scoring_version": _SCORING_VERSION,
        "model": model.fingerprint,
        "format": row_format.name,
        "columns": dict(row_format.columns),
        "alignment": options.alignment,
        "max_length": options.max_length,
        "dtype": resolve_dtype(options.dtype, device),
        "unit_rows": options.unit_rows,
    }
    scoring_id = _digest(identity)
    score_set = ScoreSet(location, scoring_id, identity)
    described = {
        "scoring_id": scoring_id,
        "identity": identity,
        "model_name": _public_name(options),
    }
    where = score_set.pieces.join("identity.json")
    if read_bytes_or_none(where) is None:
        put_bytes(where, json.dumps(described, indent=2, ensure_ascii=False).encode())
    return score_set


def _score_units(
    options: ScoringOptions,
    corpus: Corpus,
    row_format: Format,
    model: Model,
    device: str,
    score_set: ScoreSet,
    todo: ShardUnits,
) -> None:
    spec = ModelSpec(
        options.model,
        model.fingerprint,
        Location(options.model, options.storage_options),
        options.trust_remote_code,
    )
    pool, threads = _actor_pool(options, device)
    plans = [plan for shard, units in todo for plan in group_reads(shard, units)]
    rows = sum(unit.stop - unit.start for plan in plans for unit in plan.units)
    with ScoringProgress(rows, sum(len(plan.units) for plan in plans)) as progress:
        scored = scoring_dataset(
            corpus.location,
            plans,
            EncodeRules(row_format, spec, options.max_length, options.alignment),
            EngineRules(spec, device, score_set.identity["dtype"], options.token_budget, threads),
            pool,
            progress.tally,
        )
        write_pieces(scored, score_set.pieces)
        splits = progress.counts().oom_splits
    if splits:
        _say(
            f"note: the device ran out of memory {splits} times; those batches were halved and "
            "scored; a lower --token-budget saves the tries"
        )
    if left := _missing(score_set, todo):
        shard, units = left[0]
        raise SfRayError(
            f"{sum(len(u) for _, u in left)} units have no scores after scoring, e.g. rows from "
            f"{units[0].start} of {shard.file.relative}; run the same command again"
        )


def _actor_pool(options: ScoringOptions, device: str) -> tuple[ActorPool, int | None]:
    """Size of the pool, and threads of an actor on CPU."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cuda":
        gpus = ray.cluster_resources().get("GPU", 0)
        most = max(1, int(gpus / options.gpus_per_actor))
        low, high = options.actors or (1, most)
        return ActorPool(low, high, options.cpus_per_actor or 1, options.gpus_per_actor), None
    node_cpus = [node["CPU"] for node in nodes if node.get("CPU")]
    smallest = min(node_cpus, default=1)
    low, high = options.actors or (1, max(1, len(node_cpus)))
    # One CPU of a node stays free for reading and writing; it computes with all of them.
    cpus = options.cpus_per_actor or max(smallest - 1, 0.25)
    threads = options.threads_per_actor or int(options.cpus_per_actor or smallest)
    return ActorPool(low, high, cpus, 0), max(1, threads)


def _existing_scores(location: Location, scoring_id: str | None) -> ScoreSet:
    """The score set to select from.

    Raises:
        SfRayError: There is none, or there are several and none was chosen.
    """
    found = {}
    for file in list_files(location, "/identity.json"):
        described = json.loads(location.fs.cat_file(file.path))
        found[described["scoring_id"]] = described
    if scoring_id is None and len(found) == 1:
        scoring_id = next(iter(found))
    if scoring_id is not None and scoring_id in found:
        return ScoreSet(location, scoring_id, found[scoring_id]["identity"])
    if not found:
        raise SfRayError(f"{location.public_uri}: no scores there; make some with `sf-ray score`")
    names = "\n".join(
        f"  {key}  {value['model_name']}, {value['identity']['dtype']}, "
        f"{value['identity']['alignment']}, max_length {value['identity']['max_length']}"
        for key, value in sorted(found.items())
    )
    wanted = "holds several score sets" if scoring_id is None else f"has no scores {scoring_id!r}"
    raise SfRayError(f"{location.public_uri} {wanted}; choose one with --scoring-id:\n{names}")


# Select and write


def _select(
    options: SelectionOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    units: ShardUnits,
    scored: int,
    wall_s: dict[str, float],
) -> None:
    location = Location(options.output, options.storage_options)
    output = Output(location)
    asked = options.model_dump(
        include={"keep_fraction", "keep_count", "min_ifd", "max_ifd", "ifd_column"}
    )
    request_id = _digest([corpus.fingerprint, score_set.scoring_id, asked])
    manifest = output.finished(request_id)
    if manifest is not None:
        _say("nothing to do: the output is there, whole, and of this very request")
    else:
        output.begin(shard.file.relative for shard in corpus.shards)
        wanted = rows_to_keep(corpus.rows, options.keep_fraction, options.keep_count)
        candidates = Candidates.between(options.min_ifd, options.max_ifd, corpus.rows)
        with _timed("select", wall_s):
            ranking = rank(score_set.pieces, units, candidates, wanted)
        with _timed("write", wall_s):
            write = functools.partial(
                _write,
                corpus.location,
                score_set.pieces,
                ranking.cutoff,
                output.data,
                options.ifd_column,
            )
            written = list(parallel_map(write, list(units)))
        total = sum(len(shard_units) for _, shard_units in units)
        manifest = manifest_of(
            request_id=request_id,
            corpus=corpus,
            scores=score_set.location,
            scoring_id=score_set.scoring_id,
            identity=score_set.identity,
            units={"total": total, "scored": scored, "reused": total - scored},
            options=options,
            wanted=wanted,
            ranking=ranking,
            written=written,
            wall_s=wall_s,
        )
        output.finish(manifest)
    print_manifest(manifest, location)


def _write(
    corpus: Location,
    scores: Location,
    cutoff: Cutoff | None,
    data: Location,
    ifd_column: str,
    shard_units: tuple[Shard, Sequence[Unit]],
) -> WrittenShard:
    shard, units = shard_units
    pieces = [piece.ifd for piece in read_scores(scores, shard, units)]
    ifd = np.concatenate(pieces) if pieces else np.empty(0)
    return write_shard(corpus, shard, ifd, cutoff, data, ifd_column)


# Small things


def _start_ray(address: str | None) -> None:
    """Joins the cluster that there is, or starts one on this machine."""
    if ray.is_initialized():
        return
    # Whether tokens guard a cluster is said once by `ray start`, not by every job.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    # We show our own progress; a warning that resources do not suffice still comes through.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    # A task's failure is told once, as our error; --debug shows the whole chain.
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)
    if address is None and _recorded_cluster_is_gone():
        _say("note: the Ray cluster last started on this machine is gone; starting a local one")
        address = "local"
    try:
        ray.init(address=address, logging_level="warning", log_to_driver=True)
    except (ConnectionError, ValueError) as error:
        raise SfRayError(
            f"no Ray cluster could be joined or started ({str(error).splitlines()[0]}); check "
            "--ray-address and RAY_ADDRESS, or give --ray-address local"
        ) from error


def _recorded_cluster_is_gone() -> bool:
    """Whether `ray.init()` would wait for minutes for a cluster that was killed.

    `ray start` records its address on the machine, and only `ray stop` removes it.
    """
    from ray._private.services import find_bootstrap_address

    recorded = None if os.environ.get("RAY_ADDRESS") else find_bootstrap_address(None)
    if recorded is None:
        return False
    host, _, port = recorded.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return True
    return False


@contextmanager
def _timed(stage: str, wall_s: dict[str, float] | None = None) -> Iterator[dict[str, float]]:
    wall_s = {} if wall_s is None else wall_s
    start = monotonic()
    yield wall_s
    wall_s[stage] = monotonic() - start
    _say(f"{stage}: {duration(wall_s[stage])}")


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _public_name(options: ScoringOptions) -> str:
    return Location(options.model).public_uri


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
