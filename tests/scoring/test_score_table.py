import numpy as np

from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.engine.sequences import TokenSequence
from sf_ray.scoring.score_table import SCORE_SCHEMA, score_table


def sequence(*spans: tuple[int, int]) -> TokenSequence:
    length = max((stop for _, stop in spans), default=1)
    return TokenSequence(np.arange(length, dtype=np.int32), spans)


def test_losses_go_to_the_turns_that_they_are_of() -> None:
    rows = [
        # One sequence with the conditioned passes of two turns, and one for each turn alone.
        EncodedRow(
            Status.OK,
            5,
            8,
            False,
            (sequence((4, 7), (9, 14)),),
            (sequence((1, 3)), sequence((1, 5))),
        ),
        EncodedRow(Status.BAD_ROW, None, None, False),
        EncodedRow(Status.OK, 2, 3, True, (sequence((2, 5)),), (sequence((1, 3)),)),
    ]
    losses = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    scores = score_table("s", 7, encoded_table(rows), losses)
    assert scores.schema.equals(SCORE_SCHEMA)
    assert scores["row"].to_pylist() == [7, 8, 9]
    assert scores["status"].to_pylist() == ["ok", "bad_row", "ok"]
    assert scores["truncated"].to_pylist() == [False, False, True]
    assert scores["loss_conditioned"].to_pylist() == [(3 * 1 + 5 * 2) / 8, None, 5]
    assert scores["loss_direct"].to_pylist() == [(2 * 3 + 4 * 4) / 6, None, 6]
    # Only a row with several turns says what each of them has.
    first, second = (
        {"answer_tokens": tokens, "loss_direct": direct, "loss_conditioned": conditioned}
        for tokens, direct, conditioned in ((3, 3.0, 1.0), (5, 4.0, 2.0))
    )
    assert scores["turns"].to_pylist() == [[first, second], None, None]


def test_a_score_table_has_null_where_there_is_no_value_never_nan() -> None:
    rows = [
        EncodedRow(Status.ANSWER_TOO_SHORT, 2, 1, False, (sequence((2, 3)),), (sequence((1, 1)),)),
        EncodedRow(Status.OK, 2, 3, False, (sequence((2, 5)),), (sequence((1, 3)),)),
    ]
    scores = score_table("s", 0, encoded_table(rows), np.array([1.5, np.nan, np.inf, 1.0]))
    assert scores["status"].to_pylist() == ["answer_too_short", "non_finite"]
    assert scores["loss_conditioned"].to_pylist() == [1.5, None]
    assert scores["loss_direct"].to_pylist() == [None, 1.0]
    for name in ("ppl_direct", "ppl_conditioned", "ifd"):
        assert scores[name].to_pylist() == [None, None]


def test_no_rows_make_an_empty_table() -> None:
    scores = score_table("s", 0, encoded_table([]), np.empty(0))
    assert (scores.num_rows, scores.schema) == (0, SCORE_SCHEMA)


def test_rows_that_do_not_follow_each_other_bring_their_numbers() -> None:
    row = EncodedRow(Status.OK, 2, 3, False, (sequence((2, 5)),), (sequence((1, 3)),))
    encoded = encoded_table([row, row]).append_column("row", [[9, 30]])
    scores = score_table("s", 7, encoded, np.ones(4))
    assert scores["row"].to_pylist() == [9, 30]
    assert scores.schema == SCORE_SCHEMA
