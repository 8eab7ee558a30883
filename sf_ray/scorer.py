"""Scoring without a cluster: a list of pairs in, a list of scores out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.corpus.examples import Example, chat_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.templates import Template
from sf_ray.engine.engine import Engine
from sf_ray.engine.flops import Work
from sf_ray.engine.model_files import chat_template, load_tokenizer, resolve_dtype, resolve_model
from sf_ray.engine.pending import Pending
from sf_ray.scoring.score_table import encoded_table, score_table, sequences_of


@dataclass(frozen=True)
class TurnScore:
    """Losses of one assistant turn of a chat, in nats per token."""

    answer_tokens: int
    loss_direct: float | None
    loss_conditioned: float | None


@dataclass(frozen=True)
class Score:
    """Scores of one example; None where there is no value (`docs/concepts.md` lists the statuses).

    Attributes:
        turns: Of a chat in which several are scored, each of them.
    """

    status: str
    prompt_tokens: int | None
    answer_tokens: int | None
    truncated: bool
    loss_direct: float | None
    loss_conditioned: float | None
    ppl_direct: float | None
    ppl_conditioned: float | None
    ifd: float | None
    turns: list[TurnScore] | None


class Scorer:
    r"""Scores prompt/answer pairs and chats on this machine.

    scorer = Scorer("demo")
    scores = scorer.score([("What is 2 + 2?\n", "4, as two pairs make four.")])
    scores[0].ifd
    """

    def __init__(
        self,
        model: str,
        *,
        alignment: str = "reference",
        max_length: int = 1024,
        device: str = "cpu",
        dtype: str = "auto",
        token_budget: int | None = None,
        template: str = "plain",
        turns: str = "all",
        compile: bool = True,
    ) -> None:
        """
        Args:
            model: Hub name, directory (path or URI), .gguf file, or "demo".
            alignment: "reference" for the paper's numbers, or "aligned".
            max_length: Window in tokens.
            device: "cpu" or "cuda".
            dtype: "auto", "float32", "float16" or "bfloat16".
            token_budget: Padded tokens in one batch.
            template: "plain" as in the paper, "chat" for the model's own, or a Jinja template.
            turns: "all" scores every assistant turn of a chat, "last" the last one.
            compile: Compile the model's layers on CUDA.

        Raises:
            SfRayError: The model cannot be found or loaded, or the template does not work.
        """
        resolved = resolve_model(model)
        tokenizer = load_tokenizer(resolved)
        jinja = chat_template(resolved, tokenizer) if template == "chat" else template
        rendering = Template() if template == "plain" else Template("chat", jinja)
        self._encoder = Encoder(tokenizer, max_length, alignment, template=rendering, turns=turns)
        engine = Engine(
            resolved.path,
            device=device,
            dtype=resolve_dtype(dtype, device),
            token_budget=token_budget,
            compile=compile,
        )
        self._units = UnitScorer(engine)

    def score(
        self, examples: Sequence[tuple[str, str] | Sequence[Mapping[str, object]]]
    ) -> list[Score]:
        """Scores examples, in order.

        Args:
            examples: Pairs of a prompt, which is taken as it is, and an answer; or chats, as lists
                of messages with `role` and `content`.
        """
        made = [Example.pair(*e) if isinstance(e, tuple) else chat_of(e) for e in examples]
        encoded = encoded_table(self._encoder.encode(made))
        table = self._units.begin("", 0, encoded).result()
        rows = table.drop_columns(["shard", "row", "digest"]).to_pylist()
        for row in rows:
            row["turns"] = row["turns"] and [TurnScore(**turn) for turn in row["turns"]]
        return [Score(**row) for row in rows]


class UnitScorer:
    """Scores units with an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def notes(self) -> Sequence[str]:
        """What people should know of the engine with this model, on this device."""
        return self._engine.notes

    def work(self, encoded: pa.Table) -> Work:
        """What scoring a unit's encoded rows takes, without doing it."""
        return self._engine.work(sequences_of(encoded))

    def begin(
        self,
        shard: str,
        start: int,
        encoded: pa.Table,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Pending[pa.Table]:
        """Begins with a unit's encoded rows as one batching pool; it comes to its score table.

        The next unit may begin before the result of this one is taken.

        Raises:
            EngineFailedError: By the result: the model cannot score one of them.
        """
        losses = self._engine.begin(sequences_of(encoded), on_batch)
        return Pending(lambda: score_table(shard, start, encoded, losses.result()), losses.usage)
