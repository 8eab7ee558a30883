import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.engine.prefix_tree import PrefixOrder, PrefixTree
from sf_ray.engine.sequences import TokenSequence, TokenSequences

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


def order_of(pool: list[TokenSequence]) -> tuple[TokenSequences, PrefixOrder]:
    sequences = TokenSequences.of(pool)
    return sequences, PrefixOrder.of(sequences, np.arange(len(pool)))[0]


def fed_of(pool: list[TokenSequence], tree: PrefixTree) -> list[list[int]]:
    return [pool[index].ids[:-1].tolist() for index in tree.sequences]


@given(SCORED)
def test_every_prefix_has_one_slot(pool: list[TokenSequence]) -> None:
    tree = PrefixTree.of(*order_of(pool))
    prefixes = {tuple(s.ids[:end].tolist()) for s in pool for end in range(1, len(s.ids))}
    paths = paths_of(tree)
    assert sorted(tuple(tree.ids[path].tolist()) for path in paths) == sorted(prefixes)
    assert tree.positions.tolist() == [len(path) - 1 for path in paths]


@given(SCORED, st.data())
def test_the_path_of_each_sequence_spells_it_in_the_whole_tree_and_in_a_part(
    pool: list[TokenSequence], data: st.DataObject
) -> None:
    sequences, order = order_of(pool)
    start = data.draw(st.integers(0, len(order) - 1))
    stop = data.draw(st.integers(start + 1, len(order)))
    for first, last in ((0, None), (start, stop)):
        tree = PrefixTree.of(sequences, order, first, last)
        assert tree.sequences.tolist() == order.order[first:last].tolist()
        paths = np.split(tree.paths, tree.path_starts[1:-1])
        assert [tree.ids[path].tolist() for path in paths] == fed_of(pool, tree)
        through_slots = paths_of(tree)
        assert all(path.tolist() == through_slots[path[-1]] for path in paths)
        prefixes = {
            tuple(ids[:end]) for ids in fed_of(pool, tree) for end in range(1, 1 + len(ids))
        }
        assert len(tree) == len(prefixes)


@given(SCORED)
def test_every_scored_token_is_predicted_behind_its_own_prefix(pool: list[TokenSequence]) -> None:
    sequences, order = order_of(pool)
    tree = PrefixTree.of(sequences, order)
    paths = paths_of(tree)
    slots, *rest = tree.by_slot
    assert (np.diff(slots) >= 0).all()
    assert sorted(zip(slots, *rest, strict=True)) == sorted(
        zip(tree.slots, tree.targets, tree.spans, strict=True)
    )
    predicted = [
        (i, (*tree.ids[paths[slot]].tolist(), target))
        for slot, target, i in zip(slots, *rest, strict=True)
    ]
    spans = [(s, span) for s in pool for span in s.spans]
    chosen = set(sequences.spans_of(order.order).tolist())
    expected = [
        (i, tuple(s.ids[: end + 1].tolist()))
        for i, (s, (start, stop)) in enumerate(spans)
        for end in range(start, stop)
        if i in chosen
    ]
    assert sorted(predicted) == sorted(expected)


@given(SCORED)
def test_equal_sequences_are_found(pool: list[TokenSequence]) -> None:
    sequences = TokenSequences.of(pool)
    order, equals = PrefixOrder.of(sequences, np.arange(len(pool)))
    keys = [(tuple(s.ids), s.spans) for s in pool]
    assert equals.tolist() == [keys.index(key) for key in keys]
    assert sorted(order.order.tolist()) == sorted(set(equals.tolist()))


@given(SCORED, st.data())
def test_an_order_without_some_sequences_is_the_order_of_the_others(
    pool: list[TokenSequence], data: st.DataObject
) -> None:
    sequences, order = order_of(pool)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order))))
    only = order.only(kept)
    again, _ = PrefixOrder.of(sequences, np.sort(order.order[kept]))
    for name in ("order", "fed", "shared"):
        np.testing.assert_array_equal(getattr(only, name), getattr(again, name))


def test_nothing_is_distinct_in_nothing() -> None:
    order, equals = PrefixOrder.of(TokenSequences.of([]), np.arange(0))
    assert len(order) == len(equals) == order.slots == 0
