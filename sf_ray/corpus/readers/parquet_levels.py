"""What the bytes of a Parquet page say of how large rows are, before Arrow makes values of them.

A list's repetition levels say where a row begins; a run of a billion of them takes five bytes. Pure
functions over the bytes of an unpacked page: no files, and no values but the lengths of texts.

https://parquet.apache.org/docs/file-format/data-pages/encodings has the encodings
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

# A run of equal levels holds eight at least where the writer has a choice, so no page has so many.
_MOST_RUNS = 1 << 24
_GROUPS_AT_ONCE = 1 << 16  # of eight levels
_LENGTH_BYTES = 4


@dataclass
class RowRuns:
    """How the values of a page belong to rows.

    Attributes:
        before: Values of the row that began on an earlier page.
        longest: Values of the longest row that begins on this page, as far as the page goes.
        last: Values of the last row that begins on this page; 0 where none does.
    """

    before: int = 0
    longest: int = 0
    last: int = 0

    def go_on(self, values: int) -> None:
        """Adds values that begin no row."""
        if self.last:
            self.last += values
            self.longest = max(self.longest, self.last)
        else:
            self.before += values

    def begin(self, inner: int, last: int) -> None:
        """Adds rows: the longest of them has `inner` values, the last one `last` so far."""
        self.longest, self.last = max(self.longest, inner, last), last


def row_runs(levels: bytes, values: int, width: int) -> RowRuns:
    """How the values of a page belong to rows.

    Args:
        levels: Repetition levels as runs of one level, or of packed bits; level 0 begins a row.
        values: How many levels there are.
        width: Bits of a level.

    Raises:
        pa.ArrowInvalid: There are more runs than any writer makes.
    """
    found = RowRuns()
    level_bytes = (width + 7) // 8
    runs = at = 0
    while values > 0 and at < len(levels):
        if (runs := runs + 1) > _MOST_RUNS:
            raise pa.ArrowInvalid("the levels of a list in it have too many runs")
        header, at = _varint(levels, at)
        if header & 1:
            end = at + (header >> 1) * width
            while values > 0 and at < min(end, len(levels)):
                bits = levels[at : min(end, at + _GROUPS_AT_ONCE * width)]
                count = min(values, len(bits) * 8 // width)
                _add_packed(found, bits, count, width)
                values -= count
                at += _GROUPS_AT_ONCE * width
            at = end
        else:
            count = min(values, header >> 1)
            if any(levels[at : at + level_bytes]):
                found.go_on(count)
            elif count:
                found.begin(1, 1)
            values -= count
            at += level_bytes
    return found


def _add_packed(found: RowRuns, packed: bytes, count: int, width: int) -> None:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    begins = ~bits[: count * width].reshape(count, width).any(axis=1)
    starts = np.flatnonzero(begins)
    found.go_on(int(starts[0]) if len(starts) else count)
    if len(starts):
        found.begin(int(np.diff(starts).max(initial=0)), count - int(starts[-1]))


def longest_text(dictionary: bytes) -> int:
    """Bytes of the longest text in the unpacked page of a dictionary: lengths, each with a text."""
    longest = at = 0
    while at + _LENGTH_BYTES <= len(dictionary):
        length = int.from_bytes(dictionary[at : at + _LENGTH_BYTES], "little")
        longest = max(longest, length)
        at += _LENGTH_BYTES + length
    return min(longest, len(dictionary))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at
