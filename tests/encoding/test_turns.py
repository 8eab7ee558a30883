import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow, EncodedRows
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.encoding.templates import RenderedTurns
from sf_ray.encoding.text_encoder import TokenLists
from sf_ray.encoding.turns import STATUSES, Turns, Window, rows_of_turns
from sf_ray.engine.sequences import offsets
from tests.support.reference_encoder import TurnIds, encoded_row

# Few different ids, so that turns often begin with what the turn before them fed.
IDS = st.lists(st.integers(0, 2), max_size=6)


@st.composite
def chats(draw: st.DrawFn) -> list[TurnIds]:
    """The turns of a row; mostly each goes on where the last one ended, and sometimes not."""
    turns: list[TurnIds] = []
    for _ in range(draw(st.integers(1, 3))):
        so_far = turns[-1].whole if turns and draw(st.integers(0, 3)) else []
        before = so_far + draw(IDS)
        # A token may straddle the boundary: then `before` is no prefix, or even longer.
        whole = (before if draw(st.integers(0, 3)) else before[:-1]) + draw(IDS)
        turns.append(TurnIds(before, whole, draw(IDS)))
    return turns


@st.composite
def windows(draw: st.DrawFn) -> Window:
    around = draw(st.tuples(st.integers(0, 1), st.integers(0, 2)))
    after = [7, 8][: around[1]]
    return Window(draw(st.integers(1, 14)), draw(st.booleans()), sum(around), after, [9])


def rendered(turns: list[TurnIds]) -> RenderedTurns:
    return RenderedTurns.of(TokenLists.of([turn[i] for i in range(3) for turn in turns]), {})


def in_arrays(rows: list[list[TurnIds]], window: Window) -> EncodedRows:
    """Rows as the encoder makes them; a turn behind the end of the window is the one before it."""
    flat = [turn for row in rows for turn in row]
    numbers = []
    for first, row in zip(offsets([len(row) for row in rows]), rows, strict=False):
        numbers += [int(first)]
        for at in range(1, len(row)):
            full = len(flat[numbers[-1]].before) >= window.length
            numbers.append(numbers[-1] if full else int(first) + at)
    # The turns of two calls, as of a chat's first and second turns.
    half = len(flat) // 2
    turns = Turns.of([window.cut(rendered(part)) for part in (flat[:half], flat[half:])])
    counts = np.array([len(row) for row in rows])
    arrays = rows_of_turns(turns, np.array(numbers), counts)
    return EncodedRows(
        [STATUSES[place] for place in arrays.status],
        np.ones(len(rows), bool),
        arrays.prompt_tokens,
        arrays.answer_tokens,
        arrays.truncated,
        arrays.sequences,
        offsets(arrays.sequence_counts),
        counts,
        [None] * len(rows),
        {},
    )


@given(st.lists(chats(), min_size=1, max_size=5), windows())
def test_arrays_give_what_one_turn_after_the_other_gives(
    rows: list[list[TurnIds]], window: Window
) -> None:
    expected = encoded_table([encoded_row(row, window) for row in rows])
    assert encoded_table(in_arrays(rows, window)).equals(expected)


@given(st.lists(chats(), min_size=1, max_size=3), windows())
def test_rows_as_objects_and_as_arrays_are_the_same(
    rows: list[list[TurnIds]], window: Window
) -> None:
    failed = EncodedRow(Status.BAD_ROW, None, None, False, reason="of no use")
    objects = [failed, *(encoded_row(row, window, b"d" * 16) for row in rows), failed]
    again = list(EncodedRows.of(objects))
    assert encoded_table(again).equals(encoded_table(objects))
    assert [row.reason for row in again] == [row.reason for row in objects]
    passes = [[s.ids.tolist() for s in (*row.conditioned, *row.direct)] for row in objects]
    assert [[s.ids.tolist() for s in (*r.conditioned, *r.direct)] for r in again] == passes
    assert [len(row.direct) for row in again] == [len(row.direct) for row in objects]


def test_no_rows_have_a_table_too() -> None:
    nothing = rows_of_turns(
        Window(8, False, 0, [], [9]).cut(rendered([])), np.empty(0, int), np.empty(0, int)
    )
    assert len(nothing.sequences) == len(nothing.status) == 0
    assert encoded_table([]).num_rows == 0
