import hashlib

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.formats import resolve_format
from sf_ray.selection.excluded import DigestSet


def digest(name: int) -> bytes:
    return hashlib.blake2b(bytes([name]), digest_size=16).digest()


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=4),
    st.lists(st.integers(0, 30), max_size=20),
)
def test_a_union_contains_what_any_of_its_sets_has(sets: list[list[int]], asked: list[int]) -> None:
    union = DigestSet.union(
        DigestSet(pa.array(list(map(digest, names)), pa.binary(16)), len(names)) for names in sets
    )
    words = np.frombuffer(b"".join(map(digest, asked)), np.uint64).reshape(-1, 2)
    expected = [any(name in names for names in sets) for name in asked]
    assert union.contains(words).tolist() == expected
    assert union.unread == sum(map(len, sets))


def test_copies_are_found_in_another_format_and_rows_without_an_example_exclude_nothing() -> None:
    alpaca = resolve_format(["instruction", "input", "output"], "auto", {})
    chat = resolve_format(["messages"], "messages", {})
    pairs = pa.table({"instruction": ["Add.", "Sum."], "input": ["1 2", ""], "output": ["3", None]})
    excluded = DigestSet.of(alpaca, [pairs])
    assert excluded.unread == 1
    messages = [
        [{"role": "user", "content": "Add.\n1 2"}, {"role": "assistant", "content": "3"}],
        [{"role": "user", "content": "Add.\n1 2"}, {"role": "assistant", "content": "4"}],
    ]
    asked = DigestSet.of(chat, [pa.table({"messages": messages})])
    words = np.frombuffer(b"".join(asked.digests.to_pylist()), np.uint64).reshape(-1, 2)
    assert excluded.contains(words).tolist() == [True, False]
