"""What the bytes of a Parquet page say of how large rows are, before Arrow makes values of them.

A list's repetition levels say where a row begins; a run of a billion of them takes five bytes. Pure
functions over the bytes of an unpacked page: no files, and no values but the lengths of texts.

https://parquet.apache.org/docs/file-format/data-pages/encodings has the encodings
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# A run of equal levels holds eight at least where the writer has a choice, so no page has so many.
_MOST_RUNS = 1 << 24
_GROUPS_AT_ONCE = 1 << 16  # of eight levels
_LENGTH_BYTES = 4
# More values than writers put into a page, and more differences than they put into a block.
_MOST_LENGTHS, _MOST_OF_BLOCK = 1 << 22, 1 << 16
_LENGTH_BITS = 32


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


def longest_delta_text(values: bytes) -> int | None:
    """Bytes of the longest text of a page in DELTA_BYTE_ARRAY.

    Args:
        values: How many bytes each text takes from the one before it, how many follow, and these.

    Returns:
        None where no writer makes such numbers.
    """
    prefixes, at = _delta_packed(values, 0)
    suffixes, _ = _delta_packed(values, at)
    if prefixes is None or suffixes is None or len(prefixes) != len(suffixes):
        return None
    return int((prefixes + suffixes).max(initial=0))


def _delta_packed(data: bytes, at: int) -> tuple[NDArray[np.int64] | None, int]:
    """The numbers that begin at a place, None where no writer makes such; and the place behind."""
    of_block, at = _varint(data, at)
    parts, at = _varint(data, at)
    count, at = _varint(data, at)
    first, at = _varint(data, at)
    sound = 0 < parts <= of_block <= _MOST_OF_BLOCK and of_block % (8 * parts) == 0
    if not sound or count > _MOST_LENGTHS:
        return None, at
    differences: list[NDArray[np.int64]] = [np.array([_signed(first)][:count], np.int64)]
    left = count - 1
    while left > 0:
        least, at = _varint(data, at)
        widths = data[at : at + parts]
        at += parts
        if len(widths) < parts or max(widths) > _LENGTH_BITS:
            return None, at
        for width in widths[: -(-left * parts // of_block)]:  # the last block ends with the numbers
            size = of_block // parts * width // 8
            bits = np.unpackbits(np.frombuffer(data[at : at + size], np.uint8), bitorder="little")
            if len(bits) < 8 * size:
                return None, at
            numbers = bits.reshape(of_block // parts, width) @ (1 << np.arange(width))
            differences.append(numbers[:left] + _signed(least))
            left -= len(numbers)
            at += size
    return np.cumsum(np.concatenate(differences)), at


def _signed(number: int) -> int:
    """A number that was stored with its sign as the last bit."""
    return (number >> 1) ^ -(number & 1)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at
