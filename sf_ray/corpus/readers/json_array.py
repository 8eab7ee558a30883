"""Reads the elements of a JSON array as bytes of the file, without holding the whole array.

Python's JSON decoder needs a whole value. So this module reads ahead until the decoder accepts the
value that begins at the current position, and holds no more of the file than that. Knows no files,
no compression and no rows.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator

_BUFFER_BYTES = 1 << 20
# An error so near to the end of the text that was read may only mean that the text is cut there.
_NEAR_CHARS = 16

_BLANK = re.compile(r"[ \t\r\n]*")
# Only ends of values are needed here; a number of any length is an error of its own row.
_DECODER = json.JSONDecoder(parse_int=len)


class ArrayError(ValueError):
    """The text is not a valid JSON array.

    Attributes:
        offset: Byte of the unpacked file at which reading stopped.
        reason: What is wrong there.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def array_elements(
    stream: io.BufferedReader, offset: int, max_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Reads the elements of an array, from any of them to the end.

    Args:
        stream: Stands at the first element to read, or at the blanks or the bracket before it.
        offset: Byte of the unpacked file at which the stream stands.
        max_bytes: The longest element, and the most blanks between two.

    Yields:
        (byte at which an element begins, the element).

    Raises:
        ArrayError: The text is not a valid array, or something follows it.
    """
    text = _Text(stream, offset, max_bytes)
    try:
        while (following := text.next_character()) != "]":
            start, element = text.offset, text.value()
            yield start, element
            following = text.next_character()
            if following == ",":
                text.skip(1)
                if text.next_character() == "]":
                    raise ValueError("a comma before the end")
            elif following != "]":
                raise ValueError("expected a comma or ]")
        text.skip(1)
        if behind := text.next_character():
            things = {"[": "another array follows; join them", "\0": "NUL bytes follow its end"}
            raise ValueError(things.get(behind, "something follows its end"))
    except (ValueError, RecursionError) as error:
        raise ArrayError(text.offset, getattr(error, "msg", None) or str(error)) from error


class _Text:
    """The text of a stream from one position on, of which only the part in use is held.

    Attributes:
        offset: Byte of the unpacked file at which the text not yet taken begins.
    """

    def __init__(self, stream: io.BufferedReader, offset: int, max_bytes: int) -> None:
        self.offset, self._max_bytes = offset, max_bytes
        self._stream = stream
        # Bytes that are not UTF-8 become surrogates here, and the same bytes again in `value`.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at, self._ended = "", 0, False

    def next_character(self) -> str:
        """Skips blanks; returns the character after them without taking it, or "" at the end."""
        start = self.offset
        while True:
            blanks = _BLANK.match(self._text, self._at)
            assert blanks is not None, "the pattern matches the empty string too"
            self.skip(blanks.end() - self._at)
            if self.offset - start > self._max_bytes:
                raise self._too_long()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more():
                return ""

    def skip(self, ascii_characters: int) -> None:
        """Takes characters of one byte each."""
        self._at += ascii_characters
        self.offset += ascii_characters

    def value(self) -> bytes:
        """Takes the JSON value that begins here.

        Raises:
            ValueError: No valid value begins here.
        """
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # The decoder reports an unterminated string at the beginning of the string, and
                # every other cut near the end of the text.
                is_cut = error.msg.startswith("Unterminated string")
                is_cut |= error.pos >= len(self._text) - _NEAR_CHARS
                if is_cut and len(self._text) - self._at > self._max_bytes:
                    raise self._too_long() from error
                if not (is_cut and self._read_more()):
                    raise
                continue
            if end - self._at > self._max_bytes:
                raise self._too_long()
            if end < len(self._text) or not self._read_more():  # a number may go on
                value = self._text[self._at : end].encode("utf-8", "surrogateescape")
                self._at = end
                self.offset += len(value)
                return value

    def _too_long(self) -> ValueError:
        return ValueError(f"a row longer than --max-row-bytes {self._max_bytes} begins there")

    def _read_more(self) -> bool:
        """Reads on, and drops the text that was taken; returns False at the end of the stream."""
        if self._ended:
            return False
        # At least doubles the text: otherwise the decoder would try a long element again for every
        # buffer of it.
        data = self._stream.read(max(_BUFFER_BYTES, len(self._text) - self._at))
        self._ended = not data
        self._text = self._text[self._at :] + self._decoder.decode(data, self._ended)
        self._at = 0
        return True
