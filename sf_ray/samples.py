"""The rows that tell what a corpus is like, kept beside the scores: a second run reads none of it.

Knows what a sample is of, not what it is for.
"""

import json
from dataclasses import dataclass

from sf_ray.corpus.formats import SampleRow
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.rows import sample_rows, sampled_shards
from sf_ray.storage.files import put_bytes, read_bytes_or_none
from sf_ray.storage.location import Location

_NAME = "_sample.json"
_VERSION = 1


@dataclass(frozen=True)
class Sample:
    """Some rows of a corpus.

    Attributes:
        shard_ids: Of the shards that they come from.
        rows: Their values are what JSON can say; None stands for all else, e.g. dates.
        is_kept: They were read from beside the scores.
    """

    shard_ids: tuple[str, ...]
    rows: tuple[SampleRow, ...]
    is_kept: bool = False


def sample_of(scores: Location | None, corpus: Corpus) -> Sample:
    """The sample of a corpus, as an earlier run has kept it beside its scores, or else read now.

    Raises:
        SfRayError: Not one row can be read, or storage failed.
    """
    shard_ids = tuple(shard.shard_id for shard in sampled_shards(corpus))
    kept = _kept(scores, shard_ids) if scores else None
    if kept is not None:
        return kept
    text = json.dumps([vars(row) for row in sample_rows(corpus)], default=lambda _: None)
    # By way of JSON here too, so that what is found from a sample is the same on every run.
    return Sample(shard_ids, _rows(json.loads(text)))


def keep_sample(scores: Location, sample: Sample) -> None:
    """Keeps a sample beside the scores, in place of an older one."""
    if sample.is_kept:
        return
    told = {
        "version": _VERSION,
        "shard_ids": sample.shard_ids,
        "rows": [vars(row) for row in sample.rows],
    }
    put_bytes(scores.join(_NAME), json.dumps(told).encode())


def _kept(scores: Location, shard_ids: tuple[str, ...]) -> Sample | None:
    data = read_bytes_or_none(scores.join(_NAME))
    if data is None:
        return None
    try:
        told = json.loads(data)
        if told["version"] == _VERSION and tuple(told["shard_ids"]) == shard_ids:
            return Sample(shard_ids, _rows(told["rows"]), is_kept=True)
    except (ValueError, KeyError, TypeError):
        pass  # it saves requests, and no more: they are made again
    return None


def _rows(told: list[dict[str, object]]) -> tuple[SampleRow, ...]:
    return tuple(SampleRow(**row) for row in told)  # type: ignore[arg-type]
