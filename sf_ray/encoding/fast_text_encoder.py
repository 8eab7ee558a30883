"""Texts -> token ids with fastokens, which takes about a tenth of the time of `tokenizers`.

It is used because it was tried in this process with this tokenizer, and gave the same ids. So it
changes no id and no score, and is no part of the scoring identity. Whatever it cannot do is done by
`tokenizers`, the definition.
"""

import importlib.metadata
import os
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from sf_ray.encoding.text_encoder import (
    PlainTextEncoder,
    TextEncoder,
    TokenLists,
    raise_unless_refusal,
)
from sf_ray.encoding.trial_texts import trial_texts
from sf_ray.engine.sequences import offsets
from sf_ray.runtime.log import say

# While a run goes on, both encode one text in so many, and of other scripts than Latin a short one:
# about 1 % of the time that reading takes. A unit of 2,048 rows has 6,144 texts.
_CHECK_EACH, _SHORT = 4000, 1000
# Special tokens that are tried; some tokenizers reserve hundreds of the same kind.
_SPECIAL = 64


class Chosen(NamedTuple):
    """How a process encodes texts.

    Attributes:
        encoder: Encodes them.
        is_fast: Whether with fastokens.
        why: What fastokens did, for people; "" where it is not installed or was not tried.
    """

    encoder: TextEncoder
    is_fast: bool = False
    why: str = ""


def choose_text_encoder(backend: Any, sample: Sequence[str] = ()) -> Chosen:
    """Takes fastokens if it is installed and gives the ids of `tokenizers` on every text tried.

    Args:
        backend: From `backend_of`. It is tried as it is, and not as a tokenizer.json says:
            transformers may have added tokens, and a GGUF file has no tokenizer.json.
        sample: Texts of the corpus, to be tried beside awkward ones.
    """
    plain = PlainTextEncoder(backend)
    try:
        fast = _Fastokens(backend)
    except ImportError:
        return Chosen(plain)
    except BaseException as error:  # noqa: BLE001 - it may refuse a tokenizer in any way
        raise_unless_refusal(error)
        return Chosen(plain, why=f"it does not take this tokenizer ({error})")
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    texts = [*sample, *trial_texts(added[:_SPECIAL])]
    lists = _encode(fast, plain, texts)
    wrong = _first_difference(plain, texts, lists, range(len(texts)))
    if wrong is not None:
        return Chosen(plain, why=f"it gives other ids than tokenizers, first for {wrong!r}")
    version = importlib.metadata.version("fastokens")
    why = f"fastokens {version}, which gave the ids of tokenizers on {len(texts)} texts"
    return Chosen(FastTextEncoder(plain, fast), True, why)


class FastTextEncoder:
    """Encodes with fastokens, and some texts of every batch with `tokenizers` as well.

    No trial shows what all texts of a corpus do. So of each batch a few texts are compared, among
    them one that is not ASCII. At the first difference `tokenizers` takes over.
    """

    def __init__(self, plain: TextEncoder, fast: TextEncoder) -> None:
        """
        Args:
            plain: The definition.
            fast: Gives the same in less time; may raise anything for a text that it cannot encode.
        """
        self._plain = plain
        self._fast: TextEncoder | None = fast

    def encode(self, texts: Sequence[str]) -> TokenLists:
        """See `TextEncoder`."""
        if self._fast is None:
            return self._plain.encode(texts)
        lists = _encode(self._fast, self._plain, texts)
        others = (i for i, t in enumerate(texts) if len(t) < _SHORT and not t.isascii())
        checked = [*range(0, len(texts), _CHECK_EACH), *islice(others, 1)]
        wrong = _first_difference(self._plain, texts, lists, checked)
        if wrong is None:
            return lists
        self._fast = None
        say(
            f"note: fastokens encodes {wrong!r} differently from tokenizers, which encodes these "
            "rows and all that follow in this process; rows before them may have wrong ids, so "
            "uninstall fastokens and score them again"
        )
        return self._plain.encode(texts)


class _Fastokens:
    """The package, which raises ValueError for a text that it cannot encode."""

    def __init__(self, backend: Any) -> None:
        # It does not know the variable that keeps `tokenizers` to one thread in Ray's tasks, which
        # run side by side; it reads its own when it is first used.
        if os.environ.get("TOKENIZERS_PARALLELISM") == "false":
            os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")
            os.environ.setdefault("RAYON_NUM_THREADS", "1")
        from fastokens import Tokenizer

        self._tokenizer = Tokenizer.from_json_str(backend.to_str())
        self.encode(["a"])

    def encode(self, texts: Sequence[str]) -> TokenLists:
        """See `TextEncoder`."""
        ids, starts = self._tokenizer.encode_batch_flat(list(texts), True)
        return TokenLists(np.frombuffer(ids, np.int32), np.frombuffer(starts, np.int64))


def _encode(fast: TextEncoder, plain: TextEncoder, texts: Sequence[str]) -> TokenLists:
    """Encodes with `fast`, and with `plain` the texts that `fast` refuses."""
    try:
        return fast.encode(texts)
    except BaseException as error:  # noqa: BLE001 - may be anything, see below
        raise_unless_refusal(error)
    if len(texts) == 1:
        return plain.encode(texts)
    # It does not say which text it was. SmolLM2 has no token for some control characters, so in a
    # large corpus this happens again and again.
    lists = [_encode(fast, plain, [text]) for text in texts]
    starts = offsets([len(one.ids) for one in lists])
    return TokenLists(np.concatenate([one.ids for one in lists]), starts)


def _first_difference(
    plain: TextEncoder, texts: Sequence[str], lists: TokenLists, checked: Sequence[int]
) -> str | None:
    """The beginning of the first of some texts whose ids are not those of `plain`."""
    expected = plain.encode([texts[i] for i in checked])
    for place, i in enumerate(checked):
        if not np.array_equal(expected.part(place), lists.part(i)):
            return texts[i][:40]
    return None
