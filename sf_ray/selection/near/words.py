"""Text -> its words, normalised -> a hash of every run of n words.

What differs in case, punctuation, white space or invisible characters alone is the same here. Does
not know what the hashes are compared for. No files.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# Of runs of words; equal runs have equal hashes.
Hashes = NDArray[np.uint64]

# Scripts that put no space between words, and whose characters carry about half a word: Han and
# kana. Thai, Lao, Khmer and Burmese put none either, but thirteen of their letters are three words,
# so that unrelated texts would share them: there a word is what stands between two spaces.
_SINGLE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# Characters that are drawn as nothing: whoever puts one into a word does not make another word.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_ASCII_WORDS = re.compile("[a-z0-9]+")
# An odd number with bits all over: multiplying by it modulo 2^64 loses nothing.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
# Words whose hashes a process remembers: about 100 MB.
_MOST_WORDS = 1 << 20


def words_of(text: str) -> list[str]:
    """The words of a text: casefolded, in compatibility form (NFKC), without punctuation.

    A word is a run of letters, digits and their marks; each Chinese or Japanese character is a word
    of its own.
    """
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _words().findall(_INVISIBLE.sub("", unicodedata.normalize("NFKC", folded)))


def run_hashes(words: Sequence[str], n: int) -> Hashes:
    """Hashes of all runs of n words, in their order; of a shorter text one, of all its words.

    A text shorter than n so equals only texts with the very same words; one without words equals
    none.

    Returns:
        [max(1, words - n + 1)], or [0] without words.
    """
    length = min(n, len(words))
    if not length:
        return np.empty(0, np.uint64)
    hashes = np.fromiter(map(_WORD_HASHES.__getitem__, words), np.uint64, len(words))
    # A polynomial in the hashes of the words: it depends on their order. The length comes first, so
    # that a short text never equals a run of n words.
    runs = np.full(len(words) - length + 1, length, np.uint64)
    for at in range(length):
        runs = runs * _FACTOR + hashes[at : at + len(runs)]
    return runs


def joined(hashes: Iterable[Hashes]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of several texts, one after the other, and where those of each text end."""
    each = list(hashes)
    ends = np.cumsum([len(of_text) for of_text in each], dtype=np.int64)
    return np.concatenate([np.empty(0, np.uint64), *each]), ends


class _WordHashes(dict[str, int]):
    """Word -> its hash, computed when it is first asked for."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_WORDS:
            self.clear()
        data = word.encode("utf-8", "surrogatepass")
        value = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
        self[word] = value
        return value


_WORD_HASHES = _WordHashes()


@functools.cache
def _words() -> re.Pattern[str]:
    letters = rf"[^\W_{_SINGLE}]"
    # `\w` knows letters and digits, but not the vowel signs of Hindi or the accents that have no
    # composed form.
    marks = f"[{_ranges_of_marks()}]"
    return re.compile(f"[{_SINGLE}]|{letters}+(?:{marks}+{letters}*)*")


def _ranges_of_marks() -> str:
    """All combining marks, as ranges of a character class."""
    single = re.compile(f"[{_SINGLE}]")
    ranges: list[list[int]] = []
    for code in range(0x300, 0x1E950):  # the first mark, and behind the last one of letters
        char = chr(code)
        if unicodedata.category(char)[0] != "M" or single.match(char):
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
