import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.engine.prefix_tree import PrefixTree, distinct
from sf_ray.engine.sequences import TokenSequence

# Few different tokens, so that much is shared.
IDS = st.lists(st.integers(0, 2), min_size=2, max_size=9)


@st.composite
def sequences(draw: st.DrawFn) -> TokenSequence:
    """Any ids, with some spans, of which the last ends where the ids do."""
    ids = draw(IDS)
    edges = sorted(draw(st.sets(st.integers(1, len(ids)), max_size=5)) | {len(ids)})
    edges = edges if len(edges) % 2 == 0 else [edges[0], *edges]
    spans = tuple(zip(edges[::2], edges[1::2], strict=True))
    return TokenSequence(np.array(ids, np.int32), spans)


SEQUENCES = sequences()
POOLS = st.lists(SEQUENCES, min_size=1, max_size=12)
SCORED = st.lists(SEQUENCES.filter(lambda s: s.scored > 0), min_size=1, max_size=12)


def paths_of(tree: PrefixTree) -> list[list[int]]:
    """For each slot, the slots on the way to it, itself the last."""
    before = np.arange(len(tree))
    return [[*before[:slot][tree.is_on_path(slot, before[:slot])], slot] for slot in before]


@given(SCORED)
def test_every_prefix_has_one_slot(pool: list[TokenSequence]) -> None:
    tree = PrefixTree.of(pool)
    prefixes = {tuple(s.ids[:end].tolist()) for s in pool for end in range(1, len(s.ids))}
    paths = paths_of(tree)
    assert sorted(tuple(tree.ids[path].tolist()) for path in paths) == sorted(prefixes)
    assert tree.positions.tolist() == [len(path) - 1 for path in paths]


@given(SCORED)
def test_every_scored_token_is_predicted_behind_its_own_prefix(pool: list[TokenSequence]) -> None:
    tree = PrefixTree.of(pool)
    paths = paths_of(tree)
    assert (np.diff(tree.slots) >= 0).all()
    predictions = zip(tree.slots, tree.targets, tree.spans, strict=True)
    predicted = [(i, (*tree.ids[paths[slot]].tolist(), target)) for slot, target, i in predictions]
    spans = [(s, span) for s in pool for span in s.spans]
    expected = [
        (i, tuple(s.ids[: end + 1].tolist()))
        for i, (s, (start, stop)) in enumerate(spans)
        for end in range(start, stop)
    ]
    assert sorted(predicted) == sorted(expected)


@given(POOLS)
def test_equal_sequences_are_found(pool: list[TokenSequence]) -> None:
    first, places = distinct(pool)
    assert len(first) == len({(tuple(s.ids), s.spans) for s in pool})
    for sequence, place in zip(pool, places, strict=True):
        same = pool[first[place]]
        assert (same.ids.tolist(), same.spans) == (sequence.ids.tolist(), sequence.spans)


def test_nothing_is_distinct_in_nothing() -> None:
    first, places = distinct([])
    assert len(first) == len(places) == 0
