"""Cuts long texts before they are tokenised, where the ids in the window stay the same.

Of a text of 20 MB the window shows some kilobytes, and tokenising the rest takes gigabytes. What
lies behind the window decides no id in it, as long as it is far enough away: splits look at the
characters around them, and merges reach a few tokens far. That is an argument and no proof for
every tokenizer, so it is tried on each long text: it is cut at several places, of which one is
twice as far away as the others. A tokenizer whose first ids depend on how a text ends (one that
counts digits from the right, or a Unigram model on one repeated word) gives several answers, and
the row has no score. Knows no messages and no template.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Problem
from sf_ray.corpus.fields import refuse
from sf_ray.encoding.text_encoder import TextEncoder, TokenLists
from sf_ray.engine.sequences import offsets

# A text of up to this many characters is tokenised whole: no ordinary text is longer.
_FEWEST_CHARACTERS = 1 << 18
# Characters to a token of the window: tokens of long texts have four or five.
_CHARACTERS_A_TOKEN = 64
# Tokens that must lie between the window and a cut.
MARGIN = 1024
# The nearer cuts, behind half of those characters: what depends on the end of a text that repeats
# itself depends on the rest that is left of the last repetition.
_PLACES = (0, 1, 2, 3, 5)
# Characters that are tokenised at a time: `tokenizers` takes about 150 bytes for each.
_CHARACTERS_AT_ONCE = 1 << 21
FEW_TOKENS = "a beginning that is long enough for any window gives too few tokens"


def most_characters(window: int) -> int:
    """The characters of a text that are tokenised at most.

    Args:
        window: Tokens that the model sees.
    """
    return max(_FEWEST_CHARACTERS, _CHARACTERS_A_TOKEN * window)


class LongTexts:
    """Encodes texts of any length in bounded memory."""

    def __init__(self, texts: TextEncoder, window: int) -> None:
        """
        Args:
            texts: Encodes texts whole.
            window: Tokens of a text that anybody needs. The ids behind them may be left out, but a
                text that has more keeps more.
        """
        self._texts, self._window = texts, window
        self._most = most_characters(window)

    def encode(self, texts: Sequence[str]) -> tuple[TokenLists, Mapping[int, Problem]]:
        """The ids of texts, in order.

        Returns:
            The ids; index of a text -> why it has none.
        """
        lists: list[TokenLists] = []
        problems: dict[int, Problem] = {}
        at = 0
        for group in self._groups(texts):
            encoded = contained(self._encode, group)
            if isinstance(encoded, TokenLists):
                lists.append(encoded)
            else:  # the tokenizer does not say which text it cannot encode
                for place, text in enumerate(group, at):
                    alone = contained(self._encode, [text])
                    if isinstance(alone, Problem):
                        problems[place] = alone
                        alone = TokenLists.of([[]])
                    lists.append(alone)
            at += len(group)
        return _joined(lists), problems

    def _groups(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """The texts in order, some at a time; a long one on its own."""
        group: list[str] = []
        characters = 0
        for text in texts:
            length = len(text)
            is_long = length > self._most
            if group and (is_long or characters + length > _CHARACTERS_AT_ONCE):
                yield group
                group, characters = [], 0
            if is_long:
                yield [text]
                continue
            group.append(text)
            characters += length
        if group:
            yield group

    def _encode(self, group: Sequence[str]) -> TokenLists:
        if len(group) > 1 or len(group[0]) <= self._most:
            return self._texts.encode(group)
        text = group[0]
        far = self._texts.encode([text[: self._most]]).ids
        for more in _PLACES:
            near = self._texts.encode([text[: self._most // 2 + more]]).ids
            if len(near) < self._window + MARGIN:
                refuse(f"its text has {len(text):,} characters, and {FEW_TOKENS}")
            if np.array_equal(near[: self._window], far[: self._window]):
                continue
            refuse(
                f"its text has {len(text):,} characters, and the tokenizer's first ids of it "
                "depend on its end"
            )
        return TokenLists.of([far[: self._window + MARGIN].tolist()])


def _joined(lists: Sequence[TokenLists]) -> TokenLists:
    if len(lists) == 1:
        return lists[0]
    ids = [one.ids for one in lists] or [np.empty(0, np.int32)]
    lengths = [np.diff(one.starts) for one in lists] or [np.empty(0, np.int64)]
    return TokenLists(np.concatenate(ids), offsets(np.concatenate(lengths)))
