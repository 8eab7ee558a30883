"""Thrift's compact protocol, in which Parquet writes its footer: bytes <-> fields by their numbers.

What is read and written again is equal, also fields that nobody here knows. A part may stay
encoded, because a footer has a description of every piece of the file, and decoding all of them in
Python takes seconds. Does not know what any field means.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any

# Types of the protocol. A boolean field has no bytes of its own: its type is its value.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_INTEGERS = (I16, I32, I64)
_MOST_SHIFT = 63  # of the tenth byte of 64 bits

# {number of a field: (type, value)}. A value is an int; bytes for BINARY, and for DOUBLE and BYTE
# as they are encoded; None for a boolean field; (type of the elements, elements) for LIST and SET;
# a Struct; or `Encoded`.
Struct = dict[int, tuple[int, Any]]


class CompactError(ValueError):
    """The bytes are not a struct in the compact protocol."""


class Encoded(bytes):
    """A value that is not decoded; it is written as it was read."""


def decode(data: bytes) -> tuple[Struct, int]:
    """The fields of the struct that `data` begins with, their values `Encoded`.

    Returns:
        (fields, bytes that the struct takes).

    Raises:
        CompactError: `data` does not begin with a whole struct.
    """
    return _guarded(_read_struct, data, 0, False)  # type: ignore[no-any-return]


def decode_value(value_type: int, value: bytes) -> Any:
    """A value with everything in it.

    Raises:
        CompactError: The bytes are no value of the type.
    """
    return _guarded(_read_value, value, value_type, 0)[0]


def encode(struct: Struct) -> bytes:
    """The bytes of a struct."""
    out = bytearray()
    _write_struct(out, struct)
    return bytes(out)


def _guarded(read: Any, data: bytes, *arguments: Any) -> Any:
    try:
        value, end = read(data, *arguments)
    except (IndexError, RecursionError) as error:
        raise CompactError("it is cut, or damaged") from error
    if end > len(data):
        raise CompactError("it is cut")
    return value, end


def _read_struct(data: bytes, at: int, deep: bool = True) -> tuple[Struct, int]:
    fields: Struct = {}
    number = 0
    while header := data[at]:
        at += 1
        if header >> 4:
            number += header >> 4
        else:
            number, at = _read_integer(data, at)
        field_type = header & 15
        if field_type in (TRUE, FALSE):
            fields[number] = (field_type, None)
        elif deep:
            value, at = _read_value(data, field_type, at)
            fields[number] = (field_type, value)
        else:
            end = _skip_value(data, field_type, at)
            fields[number] = (field_type, Encoded(data[at:end]))
            at = end
    return fields, at + 1


def _read_value(data: bytes, value_type: int, at: int) -> tuple[Any, int]:
    if value_type in _INTEGERS:
        return _read_integer(data, at)
    if value_type == BINARY:
        length, at = _read_varint(data, at)
        return data[at : at + length], at + length
    if value_type == STRUCT:
        return _read_struct(data, at)
    if value_type in (LIST, SET):
        length, element_type, at = _read_list_header(data, at)
        elements = []
        for _ in range(length):
            element, at = _read_value(data, element_type, at)
            elements.append(element)
        return (element_type, elements), at
    end = _skip_value(data, value_type, at)
    return data[at:end], end


def _skip_value(data: bytes, value_type: int, at: int) -> int:
    """The position behind a value."""
    if value_type in _INTEGERS:
        while data[at] >= 128:
            at += 1
        return at + 1
    if value_type == BINARY:
        length, at = _read_varint(data, at)
        return at + length
    if value_type == STRUCT:
        while header := data[at]:
            at += 1
            if not header >> 4:
                at = _skip_value(data, I16, at)
            if header & 15 > FALSE:
                at = _skip_value(data, header & 15, at)
        return at + 1
    if value_type in (LIST, SET):
        length, element_type, at = _read_list_header(data, at)
        for _ in range(length):
            at = _skip_value(data, element_type, at)
        return at
    widths = {TRUE: 1, FALSE: 1, BYTE: 1, DOUBLE: 8}  # a boolean in a list is a byte
    if value_type not in widths:
        raise CompactError(f"it has a value of type {value_type}")
    return at + widths[value_type]


def _read_list_header(data: bytes, at: int) -> tuple[int, int, int]:
    """(number of elements, their type, position of the first)."""
    header = data[at]
    at += 1
    length = header >> 4
    if length == 15:
        length, at = _read_varint(data, at)
    if length > len(data) - at:  # every element has a byte at least
        raise CompactError("a list in it is longer than it is")
    return length, header & 15, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) >= 128:
        value |= (byte & 127) << shift
        shift += 7
        at += 1
        if shift > _MOST_SHIFT:
            raise CompactError("a number in it has too many bits")
    return value | byte << shift, at + 1


def _read_integer(data: bytes, at: int) -> tuple[int, int]:
    zigzag, at = _read_varint(data, at)
    return zigzag >> 1 ^ -(zigzag & 1), at


def _write_struct(out: bytearray, struct: Struct) -> None:
    last = 0
    for number, (field_type, value) in sorted(struct.items(), key=lambda field: field[0]):
        if 0 < number - last < 16:
            out.append(number - last << 4 | field_type)
        else:
            out.append(field_type)
            _write_integer(out, number)
        last = number
        if field_type not in (TRUE, FALSE):
            _write_value(out, field_type, value)
    out.append(0)


def _write_value(out: bytearray, value_type: int, value: Any) -> None:
    if isinstance(value, Encoded):
        out += value
    elif value_type in _INTEGERS:
        _write_integer(out, value)
    elif value_type == BINARY:
        _write_varint(out, len(value))
        out += value
    elif value_type == STRUCT:
        _write_struct(out, value)
    elif value_type in (LIST, SET):
        element_type, elements = value
        if len(elements) < 15:
            out.append(len(elements) << 4 | element_type)
        else:
            out.append(15 << 4 | element_type)
            _write_varint(out, len(elements))
        for element in elements:
            _write_value(out, element_type, element)
    else:
        out += value


def _write_integer(out: bytearray, value: int) -> None:
    _write_varint(out, value << 1 if value >= 0 else ~(value << 1))


def _write_varint(out: bytearray, value: int) -> None:
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
