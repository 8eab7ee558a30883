from dataclasses import replace

from sf_ray.corpus.examples import Example, Message
from sf_ray.corpus.messages import chat_of
from tests.support.chats import ANSWER, USER, turn


def test_a_greeting_before_the_first_question_is_context() -> None:
    example = chat_of([ANSWER, USER, ANSWER])
    assert isinstance(example, Example)
    assert example.turns == [2]


def test_copies_have_the_same_digest_and_nothing_else_has() -> None:
    chats = [
        [USER, ANSWER],
        [USER, turn("assistant", "one  word")],
        [turn("user", "whatone"), ANSWER],
    ]
    digests = [chat.digest for chat in map(chat_of, chats) if isinstance(chat, Example)]
    assert len({*digests}) == len(digests) == 3
    assert Example.pair("what", "one word").digest == digests[0]


QUESTION, WORDS = Message("user", "what"), Message("assistant", "one word")


def test_answers_that_are_context_only_are_no_turns_and_change_the_digest() -> None:
    all_turns = Example((QUESTION, WORDS, QUESTION, WORDS))
    masked = Example((QUESTION, replace(WORDS, weight=0), QUESTION, WORDS))
    later = replace(all_turns, scored_from=2)
    assert (all_turns.turns, masked.turns, later.turns) == ([1, 3], [3], [3])
    assert all_turns.text == masked.text == later.text
    assert masked.digest == later.digest != all_turns.digest
    # Half a weight is a turn like any other, and a prompt without answers is context anyway.
    assert (
        Example((QUESTION, replace(WORDS, weight=0.5))).digest == Example((QUESTION, WORDS)).digest
    )
    assert Example((QUESTION, WORDS), scored_from=1).digest == Example((QUESTION, WORDS)).digest


def test_reasoning_is_said_before_the_content() -> None:
    thinking = replace(WORDS, reasoning="Hm.")
    assert thinking.text == "Hm.\none word"
    assert replace(thinking, content="").text == "Hm."
