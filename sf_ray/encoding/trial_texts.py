"""Texts on which tokenizers that should agree are most likely to differ. Plain values."""

from collections.abc import Iterable

# Split patterns, normalisation and byte-level alphabets treat each of these in a way of its own.
_FRAGMENTS = (
    # whitespace, of which patterns leave the last one to the next word
    " ", "  ", "   x", " \n", "\n\n  a", "\r\n", "\r\rb", "\t\tif", "\x0b\x0c", "\x1c\x85",
    "\u00a0", "\u2003\u2028\u2029", "\u3000", "\u200b\ufeff",
    # words, apostrophes of many shapes, digits
    "word", "Words and more words.", "don't I'LL we've", "o\u2019clock", "\u017fit '\u017f",
    "x" * 300, "0123456789", "3.14159, 1,000,000", "\u0663\u0664\u0665 \u00bd\u00b2",
    "snake_case camelCase HTML5", "http://a.example/b?c=d&e=%20f#g", "!!!???\n", "...---===",
    "`code` {\"json\": [1, 2]}", "<p>text</p>", "\\frac{a}{b} $x^2$",
    # scripts, composition, joiners, direction
    "\u6f22\u5b57\u304b\u306a\u30ab\u30ca", "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
    "caf\u00e9 cafe\u0301 e\u0301\u0323", "\u0130\u0131\u00df\ufb01\u212b\u2126",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u200fabc\u200e",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd",
    # what is hardly text
    "\x00", "a\x07b\x7f", "\x1b[0m", "\ufffd\ufffe\uffff", "\U00010348\U0010ffff", "\ue000",
)  # fmt: skip


def trial_texts(special: Iterable[str]) -> list[str]:
    """Texts to try a tokenizer on, some of them only difficult behind the one before them.

    Args:
        special: Texts that become a single token wherever they stand.
    """
    texts = ["", *_FRAGMENTS]
    texts += [f"{a}{b}" for a, b in zip(_FRAGMENTS, _FRAGMENTS[7:] + _FRAGMENTS[:7], strict=True)]
    texts += ["".join(_FRAGMENTS), " ".join(_FRAGMENTS[::-1])]
    for token in special:
        texts += [token, f"a{token}b", f"a {token} {token}\n{token[:-1]}"]
    # One beginning, as of many rows behind one long system prompt, with other ends: an encoder
    # that remembers where it split the last text must not split the next one there.
    beginning = "The quick brown fox jumps over it. " * 150
    for end in ("  x and more", "   ", "  \n", " \tx", "y", ""):
        texts.append(beginning + end)
    return texts
