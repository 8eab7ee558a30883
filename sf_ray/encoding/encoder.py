"""Examples -> token ids: which tokens are scored, and what the window cuts.

Knows the tokenizer, but not the model. The two passes of a question and its answer:

    conditioned   [bos] q0 q1 q2 | a0 a1 a2      scored: a0 a1 a2
    direct                 [bos] | a0 a1 a2      scored: a0 a1 a2
    direct, no bos                 a0 | a1 a2    scored: a1 a2 (a0 has no context)

In a chat each answer is scored behind everything before it, and on its own:

    conditioned   [bos] q0 q1 | a0 a1 | q2 q3 | a2 a3      scored: a0 a1 and a2 a3, each apart
    direct              [bos] | a0 a1    [bos] | a2 a3
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Example, Problem
from sf_ray.encoding.encoded_rows import EncodedRows
from sf_ray.encoding.fast_text_encoder import choose_text_encoder
from sf_ray.encoding.templates import NO_TURNS, JinjaRenderer, PlainRenderer, Renderer, Template
from sf_ray.encoding.text_encoder import TextEncoder, backend_of
from sf_ray.encoding.turns import STATUSES, Turns, Window, rows_of_turns
from sf_ray.engine.sequences import offsets
from sf_ray.errors import SfRayError


class Encoder:
    """Encodes examples by the rules of one alignment.

    `reference` gives the numbers of the paper's code. Prompt and answer are tokenised in one piece;
    the answer starts at the length of the prompt tokenised alone, even where a token straddles that
    boundary. `aligned` scores exactly the same answer tokens in both passes.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        alignment: str = "reference",
        *,
        template: Template = Template(),  # noqa: B008 - frozen
        turns: str = "all",
        texts: TextEncoder | None = None,
    ) -> None:
        """
        Args:
            tokenizer: A fast tokenizer of transformers.
            max_length: Window in tokens, including special tokens.
            alignment: "reference" or "aligned".
            template: How messages become one text.
            turns: "all" scores every assistant turn, "last" the last one.
            texts: Encodes texts of the plain template. Default: what `choose_text_encoder` finds.

        Raises:
            SfRayError: The tokenizer is not a fast one, the template does not work, or `aligned`
                finds no token to put before an answer.
        """
        backend = backend_of(tokenizer)
        self._last_only = turns == "last"

        # The special tokens around every text, e.g. <bos> before it or </s> after it: the part of
        # the ids with special tokens that is not in the ids without them.
        plain = backend.encode("a", add_special_tokens=False).ids
        whole = backend.encode("a", add_special_tokens=True).ids
        at = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        before, after = whole[:at], whole[at + len(plain) :]

        start = tokenizer.bos_token_id
        if start is None:
            start = tokenizer.eos_token_id
        aligned = alignment == "aligned"
        if aligned and not before and start is None:
            raise SfRayError(
                "--alignment aligned needs a token to put before the answer, and this tokenizer "
                "has neither BOS nor EOS: use --alignment reference"
            )
        self._renderer: Renderer
        if template.is_plain:
            texts = texts or choose_text_encoder(backend).encoder
            self._renderer = PlainRenderer(texts, max_length)
        else:
            self._renderer = JinjaRenderer(tokenizer, template, before, max_length)
            after = []  # the template decides how a text ends
        special = len(before) + len(after)
        self._window = Window(max_length, aligned, special, after, before or [start])

    def encode(self, examples: Sequence[Example | Problem]) -> EncodedRows:
        """Encodes examples; a problem becomes a row without sequences.

        Returns:
            One row for each example, in order.
        """
        problems = {i: e for i, e in enumerate(examples) if isinstance(e, Problem)}
        rendered = {i: e for i, e in enumerate(examples) if isinstance(e, Example)}
        hashed = {i: contained(_digest, e) for i, e in rendered.items()}
        problems |= {i: digest for i, digest in hashed.items() if isinstance(digest, Problem)}
        digests = {i: digest for i, digest in hashed.items() if isinstance(digest, bytes)}
        rendered = {i: rendered[i] for i in digests}
        turns, numbers, failed = self._encode_turns(rendered)
        problems |= failed

        counts = np.zeros(len(examples), np.int64)
        counts[list(numbers)] = [len(of_row) for of_row in numbers.values()]
        has_turns = counts > 0
        rows = rows_of_turns(
            turns, np.array(list(chain(*numbers.values())), np.int64), counts[has_turns]
        )

        def spread(values: NDArray[Any]) -> NDArray[Any]:
            """Values of the rows with turns -> of all rows, 0 for the others."""
            of_all = np.zeros(len(examples), values.dtype)
            of_all[has_turns] = values
            return of_all

        places = spread(rows.status).tolist()
        return EncodedRows(
            statuses=[
                problems[i].status if i in problems else STATUSES[place]
                for i, place in enumerate(places)
            ],
            rendered=has_turns,
            prompt_tokens=spread(rows.prompt_tokens),
            answer_tokens=spread(rows.answer_tokens),
            truncated=spread(rows.truncated),
            sequences=rows.sequences,
            starts=offsets(spread(rows.sequence_counts)),
            turns=counts,
            digests=[digests[i] if i in numbers else None for i in range(len(examples))],
            reasons={i: problem.reason for i, problem in problems.items()},
        )

    def _encode_turns(
        self, examples: Mapping[int, Example]
    ) -> tuple[Turns, dict[int, list[int]], dict[int, Problem]]:
        """Encodes the turns of examples, or finds out why the template cannot render one.

        Renders the first turn of all examples together, then the second turn of those that have
        one, and so on. A turn behind the end of the window is not rendered: it is encoded like the
        last turn before it, which has no room either.

        Args:
            examples: Index of a row -> its example.

        Returns:
            All turns; index of a row -> the numbers of its turns; index of a row -> the problem of
            its first turn that does not render. A row is in one of the two.
        """
        parts = [self._window.cut(NO_TURNS)]  # so that there is one even without examples
        numbers: dict[int, list[int]] = {i: [] for i in examples}
        problems: dict[int, Problem] = {}
        messages = {i: e.turns[-1:] if self._last_only else e.turns for i, e in examples.items()}
        left, number = list(examples), 0
        while left:
            next_turns = [(examples[i], messages[i][len(numbers[i])]) for i in left]
            rendered = self._renderer.turns(next_turns)
            parts.append(self._window.cut(rendered))
            has_room = (rendered.before_lengths < self._window.length).tolist()
            going_on = []
            for at, i in enumerate(left):
                if at in rendered.problems:
                    problems[i] = rendered.problems[at]
                    del numbers[i]
                    continue
                numbers[i].append(number + at)
                missing = len(messages[i]) - len(numbers[i])
                if missing and has_room[at]:
                    going_on.append(i)
                else:
                    numbers[i] += numbers[i][-1:] * missing
            number += len(left)
            left = going_on
        return Turns.of(parts), numbers, problems


def _digest(example: Example) -> bytes:
    return example.digest
