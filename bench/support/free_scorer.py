"""A scorer that costs nothing, in place of the model: what is left is the pipeline around it.

`specs()` is what commands take in place of the real one. Its scores are a hash of a row's place,
spread over all IFD bins as those of a large corpus are.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.cloudpickle

from sf_ray.commands.setup import Specs
from sf_ray.corpus.readers.json_lines import LINES
from sf_ray.corpus.rows import rows_of
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
        unit_s: Seconds that it takes for a unit.
        read_s: Seconds that a read task takes for a unit.
        log: File in which it writes down, before each unit, shard, first row, time and process.
        on_poison: What it does about an answer with the word `POISON` in it: "", "raise" or "die".
        dies_at_start: Ends the process instead of starting.
        embeds: Embeddings cost nothing either.
        digests: Tells rows of equal answers to be copies.
    """

    unit_s: float = 0
    read_s: float = 0
    log: str = ""
    on_poison: str = ""
    dies_at_start: bool = False
    digests: bool = False
    embeds: bool = False


_settings = Settings()


def specs(settings: Settings = Settings()) -> Specs:
    """What a command takes to score for nothing, in this process's jobs from now on."""
    global _settings
    _settings = settings
    if __name__ != "__main__":  # the workers need not find this file
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    embedder = FreeEmbedderSpec if settings.embeds else EmbedderSpec
    return Specs(FreeEncodingSpec, FreeEngineSpec, embedder)


@dataclass(frozen=True)
class FreeEncodingSpec(EncodingSpec):
    """Reads the text columns, as the real one must, and encodes nothing."""

    def check(self) -> None:
        return

    def for_workers(self) -> "FreeEncodingSpec":
        return self

    def encode(self, rows: pa.Table, shard: str, start: int) -> pa.Table:
        if _settings.read_s:
            time.sleep(_settings.read_s)
        answer = self.format.columns[self.format.required[-1]]
        if rows.schema.equals(LINES):
            return _of_lines(rows, answer)
        answers = rows[answer]
        encoded = {"tokens": pc.fill_null(pc.binary_length(answers), 0)}
        if _settings.digests:
            encoded["digest"] = pa.array(map(_digest, answers.to_pylist()), pa.binary(16))
        if _settings.on_poison:
            poisoned = pc.fill_null(pc.match_substring(answers, POISON), False)
            encoded |= {"poisoned": poisoned, "status": ["ok"] * rows.num_rows}
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
    """Gives scores at once."""

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
    """Texts with many words in common are alike."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        sums = [sum(map(_of_word, text.split()), np.full(32, 1e-3)) for text in texts]
        return np.array([one / np.linalg.norm(one) for one in sums], np.float16)


def _of_word(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).standard_normal(32)


def _digest(answer: str | None) -> bytes | None:
    return None if answer is None else hashlib.blake2b(answer.encode(), digest_size=16).digest()


def free_scores(shard: str, start: int, rows: int, tokens: pa.ChunkedArray) -> pa.Table:
    """A score table: IFD is spread evenly over (1/e, 1)."""
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
    # python free_scorer.py '{"unit_s": 0.1}' run INPUT OUTPUT ...: as `sf-ray`, with this scorer
    from sf_ray.cli import main

    sys.exit(main(sys.argv[2:], specs(Settings(**json.loads(sys.argv[1])))))
