"""What is decoded and encoded again is equal, whatever the fields mean."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.Thrift import TType
from thrift.transport.TTransport import TMemoryBuffer

from sf_ray.corpus.readers.thrift_compact import (
    BINARY,
    BYTE,
    DOUBLE,
    FALSE,
    I16,
    I32,
    I64,
    LIST,
    SET,
    STRUCT,
    TRUE,
    CompactError,
    Struct,
    decode,
    decode_value,
    encode,
)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
SIMPLE = {
    I16: INTEGERS,
    I32: INTEGERS,
    I64: INTEGERS,
    BYTE: st.binary(min_size=1, max_size=1),
    DOUBLE: st.binary(min_size=8, max_size=8),
    BINARY: st.binary(max_size=200),
}


def values(element_type: int, deeper: st.SearchStrategy[Struct]) -> st.SearchStrategy[object]:
    return deeper if element_type == STRUCT else SIMPLE[element_type]


def lists(deeper: st.SearchStrategy[Struct]) -> st.SearchStrategy[tuple[int, list[object]]]:
    types = st.sampled_from([*SIMPLE, STRUCT])
    return types.flatmap(
        lambda kind: st.tuples(st.just(kind), st.lists(values(kind, deeper), max_size=20))
    )


def structs(deeper: st.SearchStrategy[Struct]) -> st.SearchStrategy[Struct]:
    fields = [st.tuples(st.sampled_from([TRUE, FALSE]), st.none())]
    fields += [st.tuples(st.just(kind), strategy) for kind, strategy in SIMPLE.items()]
    fields += [st.tuples(st.sampled_from([LIST, SET]), lists(deeper))]
    fields += [st.tuples(st.just(STRUCT), deeper)]
    return st.dictionaries(st.integers(1, 300), st.one_of(fields), max_size=6)


STRUCTS = st.recursive(st.just({}), structs, max_leaves=10)


@given(STRUCTS, st.binary(max_size=5))
def test_a_struct_comes_back_decoded_or_not(struct: Struct, behind: bytes) -> None:
    data = encode(struct)
    fields, end = decode(data + behind)
    assert end == len(data)
    assert encode(fields) == data
    decoded = {
        number: (kind, None if kind in (TRUE, FALSE) else decode_value(kind, value))
        for number, (kind, value) in fields.items()
    }
    assert decoded == struct


@given(STRUCTS.filter(bool))
def test_a_cut_struct_is_refused(struct: Struct) -> None:
    data = encode(struct)
    for length in range(len(data)):
        with pytest.raises(CompactError):
            decode(data[:length])


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(CompactError, match="type 15"):
        decode(bytes([0x1F, 0]))


def by_apache(struct: Struct) -> bytes:
    """The bytes that Apache's own library writes for a struct."""
    buffer = TMemoryBuffer()
    write_struct(TCompactProtocol(buffer), struct)
    return bytes(buffer.getvalue())


def write_struct(protocol: TCompactProtocol, struct: Struct) -> None:
    types = {
        TRUE: TType.BOOL, FALSE: TType.BOOL, I16: TType.I16, I32: TType.I32, I64: TType.I64,
        BINARY: TType.STRING, LIST: TType.LIST, STRUCT: TType.STRUCT,
    }  # fmt: skip

    def write(value_type: int, value: Any) -> None:
        if value_type in (TRUE, FALSE):
            protocol.writeBool(value_type == TRUE)
        elif value_type == BINARY:
            protocol.writeBinary(value)
        elif value_type == STRUCT:
            write_struct(protocol, value)
        elif value_type == LIST:
            element_type, elements = value
            protocol.writeListBegin(types[element_type], len(elements))
            for element in elements:
                write(element_type, element)
            protocol.writeListEnd()
        else:
            {I16: protocol.writeI16, I32: protocol.writeI32, I64: protocol.writeI64}[value_type](
                value
            )

    protocol.writeStructBegin("")
    for number, (value_type, value) in sorted(struct.items()):
        protocol.writeFieldBegin("", types[value_type], number)
        write(value_type, value)
        protocol.writeFieldEnd()
    protocol.writeFieldStop()
    protocol.writeStructEnd()


def test_the_bytes_are_those_of_apaches_own_library() -> None:
    inner: Struct = {1: (I32, -1), 200: (BINARY, b"\xff" * 300)}
    struct: Struct = {
        1: (I16, -(2**15)), 2: (I32, 2**31 - 1), 3: (I64, -(2**63)), 4: (I64, 0),
        5: (TRUE, None), 6: (FALSE, None), 7: (BINARY, b""), 40: (STRUCT, inner),
        41: (LIST, (I32, list(range(-20, 20)))), 42: (LIST, (STRUCT, [inner, {}])),
        43: (LIST, (BINARY, [b"a"] * 14)), 300: (TRUE, None),
    }  # fmt: skip
    written = by_apache(struct)
    assert encode(struct) == written
    assert decode_value(STRUCT, written) == struct
