"""Scores pairs and chats in this process, without Ray: a list of examples in, a list of scores out.

Reads no corpus and writes no file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.messages import chat_of
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.templates import Template
from sf_ray.engine.engine import Engine
from sf_ray.engine.model_files import chat_template, load_tokenizer, resolve_dtype, resolve_model
from sf_ray.scoring.unit_scorer import UnitScorer

# Rows of the table that a notebook shows, and characters that are kept of a text of theirs.
_SHOWN, _MOST_CHARACTERS = 10, 80


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


class ScoreList(list[Score]):
    """Scores in the order of their examples; a notebook shows a histogram and the first of them."""

    def __init__(
        self, scores: Iterable[Score] = (), examples: Iterable[Example | Problem] = ()
    ) -> None:
        """
        Args:
            scores: The scores.
            examples: Of the same rows. Only texts of the first few stay: a list of scores should
                not keep a corpus in memory.
        """
        super().__init__(scores)
        texts = map(_texts, islice(examples, _SHOWN))
        # Beside their scores, because a list can be sorted.
        self._texts = list(zip(self, texts, strict=False))

    def _repr_html_(self) -> str:
        # Here, because drawing needs libraries that scoring does not.
        from sf_ray.output.report.notebook import scores_as_html

        texts = {id(score): of_it for score, of_it in self._texts}
        rows = [
            (
                number,
                score.status,
                "" if score.ifd is None else f"{score.ifd:.4f}",
                "" if score.answer_tokens is None else score.answer_tokens,
                *texts.get(id(score), ("", "")),
            )
            for number, score in enumerate(self[:_SHOWN])
        ]
        ifd = np.array([score.ifd for score in self if score.ifd is not None], float)
        columns = ("", "status", "IFD", "answer tokens", "prompt", "answer")
        return scores_as_html(ifd, columns, rows, len(self))


def _texts(example: Example | Problem) -> tuple[str, str]:
    """The beginning of the last prompt of an example and of its answer; nothing of a bad row."""
    if not isinstance(example, Example):
        return "", ""
    prompt = example.messages[-2].text if len(example.messages) > 1 else ""
    return prompt[:_MOST_CHARACTERS], example.messages[-1].text[:_MOST_CHARACTERS]


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
    ) -> ScoreList:
        """Scores examples, in order.

        Args:
            examples: Pairs of a prompt, to which nothing is added, and an answer; or chats, as
                lists of messages with `role` and `content`.

        Returns:
            One score for each example, as a list that a notebook shows.
        """
        rendered = [Example.pair(*e) if isinstance(e, tuple) else chat_of(e) for e in examples]
        encoded = encoded_table(self._encoder.encode(rendered))
        table = self._units.begin("", 0, encoded).result()
        rows = table.drop_columns(["shard", "row", "digest"]).to_pylist()
        for row in rows:
            row["turns"] = row["turns"] and [TurnScore(**turn) for turn in row["turns"]]
        return ScoreList((Score(**row) for row in rows), rendered)
