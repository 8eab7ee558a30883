import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.encoding import TokenSequence
from sf_ray.streams import TokenStream, distinct

# Few different tokens, so that much is shared.
IDS = st.lists(st.integers(0, 2), min_size=2, max_size=9)
POOLS = st.lists(IDS, min_size=1, max_size=12)


def pool_of(lists: list[list[int]]) -> list[TokenSequence]:
    return [TokenSequence(np.array(ids, np.int32), 1 + len(ids) % 2) for ids in lists]


@given(POOLS)
def test_every_prefix_has_one_slot(lists: list[list[int]]) -> None:
    pool = [s for s in pool_of(lists) if s.scored]
    if not pool:
        return
    stream = TokenStream.of(pool)
    prefixes = {tuple(s.ids[:end]) for s in pool for end in range(1, len(s.ids))}
    paths = []
    for slot in range(len(stream)):
        before = np.arange(slot)
        seen = before[stream.path(slot, before)]
        paths.append(tuple(stream.ids[[*seen, slot]].tolist()))
        assert stream.positions[slot] == len(seen)
    assert sorted(paths) == sorted(prefixes)


@given(POOLS)
def test_every_scored_token_is_predicted_behind_its_own_prefix(lists: list[list[int]]) -> None:
    pool = [s for s in pool_of(lists) if s.scored]
    if not pool:
        return
    stream = TokenStream.of(pool)
    assert (np.diff(stream.slots) >= 0).all()
    found = []
    for slot, target, index in zip(stream.slots, stream.targets, stream.sequences, strict=True):
        before = np.arange(slot)
        path = [*before[stream.path(slot, before)], slot]
        found.append((int(index), (*stream.ids[path].tolist(), int(target))))
    expected = [
        (index, tuple(s.ids[: end + 1].tolist()))
        for index, s in enumerate(pool)
        for end in range(s.first, len(s.ids))
    ]
    assert sorted(found) == sorted(expected)


@given(POOLS)
def test_equal_sequences_are_found(lists: list[list[int]]) -> None:
    pool = pool_of(lists)
    first, places = distinct(pool)
    assert len(first) == len({(tuple(s.ids), s.first) for s in pool})
    for sequence, place in zip(pool, places, strict=True):
        same = pool[first[place]]
        assert (same.ids.tolist(), same.first) == (sequence.ids.tolist(), sequence.first)


def test_nothing_is_distinct_in_nothing() -> None:
    first, places = distinct([])
    assert len(first) == len(places) == 0
