"""A scorer that costs nothing, in place of the model, so that only the pipeline around it runs.

Commands take `specs()` in place of the real specs. A score is a hash of the row's place, and the
scores spread evenly over the IFD bins, as those of a large corpus do.

    python free_scorer.py '{"unit_s": 0.1}' run INPUT OUTPUT ...

runs a command line of `sf-ray` with this scorer and these `Settings`.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.cloudpickle

from sf_ray.commands.setup import Specs
from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.formats import SampleRow
from sf_ray.corpus.readers.json_lines import LINES
from sf_ray.corpus.rows import rows_of
from sf_ray.corpus.status import Status
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.engine.pending import Pending, Usage
from sf_ray.errors import EngineFailedError
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.score_table import SCORE_SCHEMA
from sf_ray.selection.diversity.embedder import EmbedderSpec

POISON = "arsenic"


@dataclass(frozen=True)
class Settings:
    """How the scorer behaves.

    Attributes:
        unit_s: Seconds that scoring a unit takes.
        read_s: Seconds that a read task takes for a unit.
        log: File to which it appends a line before each unit: shard, first row, time in ns, pid.
        on_poison: On an answer with the word `POISON`, "raise" an error, "die", or "": score it.
        dies_reading: A shard over which each process dies that reads it.
        dies_at_start: The actor's process ends instead of starting.
        digests: Rows get the digests of their examples, so that equal ones are copies.
        embeds: Embeddings cost nothing either.
    """

    unit_s: float = 0
    read_s: float = 0
    log: str = ""
    on_poison: str = ""
    dies_reading: str = ""
    dies_at_start: bool = False
    digests: bool = False
    embeds: bool = False


_settings = Settings()


def specs(settings: Settings = Settings()) -> Specs:
    """The specs for a command; the settings hold for all jobs that this process starts from now on.

    They reach the workers with this module, which is pickled by value.
    """
    global _settings
    _settings = settings
    if __name__ != "__main__":  # by value, because workers cannot import this file
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    embedder = FreeEmbedderSpec if settings.embeds else EmbedderSpec
    return Specs(FreeEncodingSpec, FreeEngineSpec, embedder)


@dataclass(frozen=True)
class FreeEncodingSpec(EncodingSpec):
    """Reads the text columns, as the real one must, and encodes nothing."""

    def check(self) -> None:
        return

    def for_workers(self) -> "FreeEncodingSpec":
        return replace(self, sample=())

    def statuses(self, sample: Sequence[SampleRow]) -> list[Status]:
        examples = [self._render(place.row, place.shard, place.number) for place in sample]
        return [Status.OK if isinstance(e, Example) else e.status for e in examples]

    def encode(self, rows: pa.Table, shard: str, start: int) -> pa.Table:
        if _settings.dies_reading == shard:
            os.kill(os.getpid(), signal.SIGSEGV)
        if _settings.read_s:
            time.sleep(_settings.read_s)
        answer = self.format.columns[self.format.required[-1]]
        if rows.schema.equals(LINES):
            return _of_lines(rows, answer)
        answers = rows[answer]
        encoded = {
            "tokens": pc.fill_null(pc.binary_length(answers), 0),
            "status": pa.repeat(pa.scalar("ok"), rows.num_rows),
        }
        if _settings.digests:
            examples = map(self.format.render, rows_of(rows))
            encoded["digest"] = pa.array(map(_digest, examples), pa.binary(16))
        if _settings.on_poison:
            poisoned = pc.fill_null(pc.match_substring(answers, POISON), False)
            encoded["poisoned"] = poisoned
        return pa.table(encoded)


def _of_lines(rows: pa.Table, answer: str) -> pa.Table:
    answers = [row.get(answer) if isinstance(row, dict) else None for row in rows_of(rows)]
    tokens = [len(str(text or "")) for text in answers]
    status = ["ok" if isinstance(text, str) else "bad_row" for text in answers]
    return pa.table({"tokens": tokens, "status": status})


@dataclass(frozen=True)
class FreeEngineSpec(EngineSpec):
    """Starts the scorer."""

    def start(self) -> "FreeScorer":  # type: ignore[override]
        if _settings.dies_at_start:
            os._exit(1)
        return FreeScorer()


class FreeScorer:
    """Has the scores of a unit as soon as it begins."""

    notes = ()

    def begin(
        self, shard: str, start: int, encoded: pa.Table, on_batch: object = None
    ) -> Pending[pa.Table]:
        return Pending(lambda: _score(shard, start, encoded), Usage())


def _score(shard: str, start: int, encoded: pa.Table) -> pa.Table:
    if _settings.log:
        with open(_settings.log, "a", encoding="utf-8") as log:
            log.write(f"{shard} {start} {time.time_ns()} {os.getpid()}\n")
    if _settings.unit_s:
        time.sleep(_settings.unit_s)
    scores = free_scores(shard, start, encoded.num_rows, encoded["tokens"])
    if _settings.digests:
        at = SCORE_SCHEMA.get_field_index("digest")
        scores = scores.set_column(at, SCORE_SCHEMA.field(at), encoded["digest"])
    if not _settings.on_poison:
        return _with_status(scores, encoded)
    if pc.any(pc.and_(encoded["poisoned"], pc.equal(encoded["status"], "ok"))).as_py():
        if _settings.on_poison == "die":
            os._exit(1)
        raise EngineFailedError("IndexError: arsenic")
    return _with_status(scores, encoded)


def _with_status(scores: pa.Table, encoded: pa.Table) -> pa.Table:
    if "status" not in encoded.column_names:
        return scores
    is_ok = pc.equal(encoded["status"], "ok")
    scores = scores.set_column(2, SCORE_SCHEMA.field("status"), encoded["status"])
    for name in ("ppl_direct", "ppl_conditioned", "ifd"):
        values = pc.if_else(is_ok, scores[name], pa.scalar(None, pa.float64()))
        place = scores.schema.get_field_index(name)
        scores = scores.set_column(place, SCORE_SCHEMA.field(name), values)
    return scores


@dataclass(frozen=True)
class FreeEmbedderSpec(EmbedderSpec):
    """Starts the embedder."""

    def start(self, device: str, threads: int | None) -> "FreeEmbedder":  # type: ignore[override]
        return FreeEmbedder()


class FreeEmbedder:
    """The embedding of a text is a sum over its words: texts that share many words are alike."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        sums = [sum(map(_of_word, text.split()), np.full(32, 1e-3)) for text in texts]
        return np.array([vector / np.linalg.norm(vector) for vector in sums], np.float16)


def _of_word(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).standard_normal(32)


def _digest(example: Example | Problem) -> bytes | None:
    return example.digest if isinstance(example, Example) else None


def free_scores(shard: str, start: int, rows: int, tokens: pa.ChunkedArray) -> pa.Table:
    """The scores of rows from `start` on: conditioned losses are uniform on (0, 1) nat.

    Direct losses are 1 nat, so the IFD lies in (1/e, 1).
    """
    salt = np.uint64(int.from_bytes(shard.encode()[-14:-8], "little"))
    with np.errstate(over="ignore"):
        place = np.arange(start, start + rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        place ^= salt * np.uint64(0xBF58476D1CE4E5B9)
        place = (place ^ (place >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    conditioned = (place >> np.uint64(11)).astype(np.float64) / 2**53
    ppl_conditioned = np.exp(conditioned)
    return pa.table(
        {
            "shard": pa.repeat(pa.scalar(shard), rows),
            "row": np.arange(start, start + rows),
            "status": pa.repeat(pa.scalar("ok"), rows),
            "prompt_tokens": tokens.cast(pa.int32()),
            "answer_tokens": tokens.cast(pa.int32()),
            "truncated": pa.repeat(pa.scalar(False), rows),
            "loss_direct": np.ones(rows),
            "loss_conditioned": conditioned,
            "ppl_direct": np.full(rows, np.e),
            "ppl_conditioned": ppl_conditioned,
            "ifd": ppl_conditioned / np.e,
            "digest": pa.nulls(rows, pa.binary(16)),
            "turns": pa.nulls(rows, SCORE_SCHEMA.field("turns").type),
        },
        schema=SCORE_SCHEMA,
    )


if __name__ == "__main__":
    from sf_ray.cli import main

    sys.exit(main(sys.argv[2:], specs=specs(Settings(**json.loads(sys.argv[1])))))
