r"""Text of others, made fit to be read: it can neither steer a terminal nor forge a line.

Names of shards, fields of a manifest, values of a column and the answers of a store may hold any
character: an escape sequence that clears the screen, a line break behind which a line of "ours"
follows, a sign that turns the order of the letters around. Here each of them becomes a visible
escape, such as `\x1b` or `\u202e`. It does not know where the text goes, and imports nothing of
this package: errors and options are worded with it too.
"""

import unicodedata

# Characters of a name that are shown: enough for the longest name of a file (255 bytes) and its
# folders, few enough that a line can still be read.
MOST_CHARACTERS = 500
# Letters and marks that are drawn as nothing, although Unicode does not class them as controls:
# with them, two names look the same.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_JOINERS = "\u200c\u200d"
# Private use has signs of its own in many fonts, and spaces of other widths are only spaces.
_SHOWN_CATEGORIES = ("Zs", "Co")


def printable(text: object, most: int = MOST_CHARACTERS) -> str:
    """Text of others as part of one line.

    Args:
        text: A name or another value; what is no string is written as `str` does.
        most: Characters that are shown; of a longer text, the middle is left out. The ends tell
            names apart: a folder at the front, a number and a suffix at the back.

    Returns:
        The text without a line break, a control character, a sign that has no width or turns the
        direction, or half of a surrogate pair, which no stream could write.
    """
    whole = _cut(text if isinstance(text, str) else str(text), most)
    return whole if _is_plain(whole) else "".join(map(_shown, whole))


def printable_lines(text: str, indent: str = "", most: int | None = None) -> str:
    """Text that may be of several lines, and whose line breaks and tabs stay.

    Args:
        text: Of any length.
        indent: What stands before every line but the first. With spaces, a line break that came in
            with a name cannot begin a line that looks like another one of ours.
        most: Characters of each line that are shown, as in `printable`; None for all.
    """
    # Split here at "\n" alone: `splitlines` also splits at signs that are to be shown instead.
    lines = text.replace("\r\n", "\n").split("\n")
    if most is not None:
        lines = [_cut(line, most) for line in lines]
    return f"\n{indent}".join(
        line if _is_plain(line) else "".join(map(_shown_in_lines, " " + line, line))
        for line in lines
    )


def printable_json(text: str) -> str:
    """JSON with the same content, in whose strings no such character stands as itself.

    Args:
        text: JSON as `json.dumps` writes it, with or without an indent.
    """
    if text.isascii() and "\x7f" not in text:  # JSON itself escapes the other controls
        return text
    return "".join(map(_shown_in_json, text))


def _cut(text: str, most: int) -> str:
    """The text without its middle, where it is too long."""
    left_out = len(text) - most
    if left_out <= 0:
        return text
    ends = text[: (most + 1) // 2], text[len(text) - most // 2 :]
    return f"[... {left_out:,} characters ...]".join(ends)


def _is_plain(text: str) -> bool:
    """Whether nothing has to be escaped, as in nearly all texts."""
    return text.isascii() and text.isprintable()


def _is_shown(char: str) -> bool:
    if char in _INVISIBLE:
        return False
    return char.isprintable() or unicodedata.category(char) in _SHOWN_CATEGORIES


def _shown(char: str) -> str:
    return char if _is_shown(char) else char.encode("unicode_escape").decode("ascii")


def _shown_in_lines(before: str, char: str) -> str:
    # Within a text, as against a name, words of many scripts and many emoji need their joiners.
    is_joiner = char in _JOINERS and not before.isascii()
    return char if char == "\t" or is_joiner else _shown(char)


def _shown_in_json(char: str) -> str:
    if char == "\n" or _is_shown(char):
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
