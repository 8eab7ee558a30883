"""JSON documents that somebody careless or hostile could have put in the place of a valid one."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

# Values of another type, or out of every range.
_OTHERS: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 2**63, 10**400, -(10**30), "", "x\n\x1b[2J\u202e", "../..", "nan",
    "1", [], {}, [[]], [1, "a", None], {"a": {"b": 1}}, {"": 0},
)  # fmt: skip
# Documents that stand for no value of ours, whatever the valid one is.
_DOCUMENTS = (
    b"", b" ", b"{", b"null", b"0", b'"text"', b"[]", b"{}", b"NaN", b"[1e999]", b'{"a": Infinity}',
    b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", "{}".encode("utf-32"), b"\x00" * 64, b'{"a": "\xff"}',
    b"[" * 100_000, b'{"a":' * 100_000, b"[" * 500 + b"]" * 500, b"1" * 10_000,
    b'"' + b"a" * 100_000,    b'{"a": 1, "a": []}', b"PAR1", b'\x1f\x8b\x08\x00{"a":1}',
)  # fmt: skip


def mutants_of(value: Any, seed: int, count: int) -> Iterator[bytes]:
    """Yields documents that no program wrote, then `count` changed ones of a valid value.

    In each of these, one to three values are exchanged, removed, repeated or nested, or bytes of
    the text are lost.
    """
    yield from _DOCUMENTS
    whole = json.dumps(value).encode()
    yield b"\xef\xbb\xbf" + whole
    yield whole.decode().encode("utf-16")
    yield from (whole[:at] for at in range(0, len(whole), max(1, len(whole) // 20)))
    random_ = random.Random(seed)
    for _ in range(count):
        mutant = json.loads(whole)
        for _ in range(random_.randint(1, 3)):
            mutant = _changed(mutant, random_)
        yield json.dumps(mutant).encode()
        if random_.random() < 0.2:
            at = random_.randrange(len(whole))
            yield whole[:at] + random_.randbytes(2) + whole[at + random_.randrange(3) :]


def _changed(value: Any, random_: random.Random) -> Any:
    """The value with one place in it changed."""
    if isinstance(value, dict) and value and random_.random() < 0.85:
        key = random_.choice(sorted(value))
        if random_.random() < 0.15:
            del value[key]
        elif random_.random() < 0.1:
            value[f"{key}\n\x1b[2J"] = value.pop(key)
        else:
            value[key] = _changed(value[key], random_)
        return value
    if isinstance(value, list) and value and random_.random() < 0.8:
        at = random_.randrange(len(value))
        if random_.random() < 0.15:
            value += copy.deepcopy(value)
        else:
            value[at] = _changed(value[at], random_)
        return value
    return copy.deepcopy(random_.choice((*_OTHERS, [value], {"a": value})))
