from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.examples import Example, Message
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow
from sf_ray.encoding.encoded_table import encoded_table, sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.sequences import TokenSequence
from sf_ray.scoring.loss_differences import loss_differences
from tests.support.engines import load


def row(
    conditioned: list[int], direct: list[int], prompt: int = 2, truncated: bool = False
) -> EncodedRow:
    """A row of one turn; `direct` begins with what stands there without a loss."""
    ids = [*range(900, 900 + prompt), *conditioned]
    return EncodedRow(
        Status.OK,
        prompt,
        len(conditioned),
        truncated,
        (TokenSequence.scored_from(ids, prompt),),
        (TokenSequence.scored_from(direct, 1),),
    )


def differences(rows: list[EncodedRow], has_score: list[bool] | None = None) -> list[Any]:
    """Differences where each token's loss is 1,000 times its span, and its place in the span.

    So a difference says which tokens were compared: 1,000 and the shift between their places.
    """
    encoded = encoded_table(rows)
    sequences = sequences_of(encoded)
    tokens = np.concatenate(
        [
            np.empty(0, np.float32),
            *(
                1000 * span + np.arange(length, dtype=np.float32)
                for span, length in enumerate(sequences.span_lengths.tolist())
            ),
        ]
    ).astype(np.float32)
    scored = np.ones(len(rows), bool) if has_score is None else np.array(has_score)
    lists = loss_differences(encoded, sequences, tokens, scored)
    assert lists.type == pa.list_(pa.float32())
    found: list[Any] = lists.to_pylist()
    return found


@pytest.mark.parametrize(
    ("conditioned", "direct", "truncated", "pairs"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], False, [999] * 3),  # no BOS: the first token has no loss
        ([1, 2, 3, 4], [0, 1, 2, 3, 4], False, [1000] * 4),  # a BOS before it
        ([1, 2, 3, 4], [7, 2, 3, 4], False, [999] * 3),  # the first one is another token
        ([1, 2, 3, 4], [0, 7, 8, 2, 3, 4], False, [1001] * 3),  # two tokens in place of one
        ([1, 2, 3], [1, 2, 3, 4], True, [999] * 2),  # the direct pass sees one token more
        ([1, 2, 3], [0, 1, 2, 3], True, [1000] * 3),  # cut, and both end together
        ([5, 5, 5, 5], [5, 5, 5, 5, 5], True, [999] * 3),  # both fit; one more only without BOS
        ([5, 5, 5, 5], [0, 5, 5, 5, 5], True, [1000] * 4),
        ([5, 5, 5, 5], [5, 5, 5, 5], True, [999] * 3),  # whole, and cut elsewhere
        ([1, 2, 3], [1, 2, 3, 4], False, None),  # not cut, so that their ends belong together
        ([1, 2, 3, 9], [6, 7, 8, 9], False, None),  # nothing but the full stop
        ([1], [1], False, None),
        ([], [1], False, None),
    ],
)
def test_tokens_pair_from_the_end_as_long_as_their_ids_are_equal(
    conditioned: list[int], direct: list[int], truncated: bool, pairs: list[int] | None
) -> None:
    other = row([11, 12], [0, 11, 12])
    found = differences([other, row(conditioned, direct, truncated=truncated), other])
    assert found == [[1000.0] * 2, pairs, [1000.0] * 2]


def test_the_tokens_of_all_turns_that_pair_stand_together_and_rows_without_a_score_have_none() -> (
    None
):
    chat = EncodedRow(
        Status.OK,
        2,
        5,
        False,
        (TokenSequence(np.arange(10, 20, dtype=np.int32), ((2, 4), (6, 10))),),
        (
            TokenSequence.scored_from([0, 12, 13], 1),
            TokenSequence.scored_from([16, 17, 18, 19], 1),
        ),
    )
    nothing = EncodedRow(Status.BAD_ROW, None, None, False)
    pair = row([1, 2], [0, 1, 2])
    found = differences([nothing, chat, pair, chat], [False, True, False, True])
    # A row with two turns has its two conditioned spans first.
    assert found == [None, [2000.0] * 2 + [1999.0] * 3, None, [2000.0] * 2 + [1999.0] * 3]


@given(
    answer=st.lists(st.integers(1, 4), max_size=12),
    alone=st.lists(st.integers(1, 4), max_size=12),
    has_bos=st.booleans(),
)
def test_only_equal_endings_pair(answer: list[int], alone: list[int], has_bos: bool) -> None:
    direct = [0, *alone] if has_bos else alone
    expected = 0
    while (
        expected < min(len(answer), len(direct)) and answer[-1 - expected] == direct[-1 - expected]
    ):
        expected += 1
    expected = min(expected, max(len(direct) - 1, 0))
    if 2 * expected < len(answer):
        expected = 0
    (found,) = differences([row(answer, direct)])
    assert len(found or []) == expected


@pytest.mark.parametrize("which", ["tiny_model", "tiny_bos_model"])
@pytest.mark.parametrize("alignment", ["reference", "aligned"])
@pytest.mark.parametrize("max_length", [60, 256])
def test_real_tokenizers_pair_all_but_the_first_token_in_any_window(
    which: str, alignment: str, max_length: int, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(which)
    _, tokenizer = load(folder)
    encoder = Encoder(tokenizer, max_length, alignment)
    texts = ["Name a colour.", "Why does water boil at a hundred degrees?", "so " * 5]
    examples = [
        Example.pair(f"{text}\n", f"{answer} {text} {answer}")
        for text in texts
        for answer in ("Red.", "It is what it is, and it is so in all places.", "word " * 30)
    ]
    chat = Example(
        (
            Message("user", "Hello there\n"),
            Message("assistant", "Hello to you too"),
            Message("user", "\nHow are you?\n"),
            Message("assistant", "I am well and so are you"),
        )
    )
    encoded = encoded_table(encoder.encode([*examples, chat]))
    assert set(encoded["truncated"].to_pylist()) == ({True, False} if max_length < 100 else {False})
    sequences = sequences_of(encoded)
    tokens = np.zeros(sequences.span_lengths.sum(), np.float32)
    ok = np.array([status == "ok" for status in encoded["status"].to_pylist()])
    found = loss_differences(encoded, sequences, tokens, ok).to_pylist()
    conditioned = encoded["conditioned_tokens"].to_pylist()
    direct = encoded["direct_tokens"].to_pylist()
    first_has_loss = which == "tiny_bos_model" or alignment == "aligned"
    for pairs, is_ok, behind, alone in zip(found, ok, conditioned, direct, strict=True):
        if is_ok:
            turns = [n for n, m in zip(behind, alone, strict=True) if n and m]
            assert len(pairs) == sum(n - (not first_has_loss) for n in turns)
        else:
            assert pairs is None
