"""Scores pairs and chats in this process, without Ray: a list of examples in, a list of scores out.

Reads no corpus and writes no file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sf_ray.corpus.examples import Example
from sf_ray.corpus.messages import chat_of
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.templates import Template
from sf_ray.engine.engine import Engine
from sf_ray.engine.model_files import chat_template, load_tokenizer, resolve_dtype, resolve_model
from sf_ray.scoring.unit_scorer import UnitScorer


@dataclass(frozen=True)
class TurnScore:
    """Losses of one assistant turn of a chat.

    Attributes:
        answer_tokens: Scored tokens of the conditioned pass.
        loss_direct: Mean loss of the answer on its own, in nats per token; None without a score.
        loss_conditioned: The same behind everything that stands before the answer.
    """

    answer_tokens: int
    loss_direct: float | None
    loss_conditioned: float | None


@dataclass(frozen=True)
class Score:
    """Scores of one example; a value is None where the example has none.

    Attributes:
        status: "ok", or why there is no IFD; `docs/concepts.md` lists the statuses.
        prompt_tokens: Tokens that are fed as prompt.
        answer_tokens: Scored tokens of the conditioned pass.
        truncated: Whether the window cut the answer.
        loss_direct: Mean loss of the answer on its own, in nats per token.
        loss_conditioned: Mean loss of the answer behind its prompt, in nats per token.
        ppl_direct: exp(loss_direct).
        ppl_conditioned: exp(loss_conditioned).
        ifd: ppl_conditioned / ppl_direct (Li et al., arXiv 2308.12032).
        turns: The scores of each turn, for a chat in which several turns are scored.
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
            template: "plain" as in the paper, "chat" for the model's own template, or the text of
                a Jinja template.
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
            examples: Pairs of a prompt, to which nothing is added, and an answer; or chats, as
                lists of messages with `role` and `content`.

        Returns:
            One score for each example.
        """
        rendered = [Example.pair(*e) if isinstance(e, tuple) else chat_of(e) for e in examples]
        encoded = encoded_table(self._encoder.encode(rendered))
        table = self._units.begin("", 0, encoded).result()
        rows = table.drop_columns(["shard", "row", "digest"]).to_pylist()
        for row in rows:
            row["turns"] = row["turns"] and [TurnScore(**turn) for turn in row["turns"]]
        return [Score(**row) for row in rows]
