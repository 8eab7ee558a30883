"""Whether a row has a score, or why not; and what each status means. Plain values."""

from enum import StrEnum


class Status(StrEnum):
    """Whether a row has an IFD score, or why not."""

    OK = "ok"
    EMPTY_ANSWER = "empty_answer"
    ANSWER_TOO_SHORT = "answer_too_short"
    PROMPT_FILLS_WINDOW = "prompt_fills_window"
    BAD_ROW = "bad_row"
    NO_ASSISTANT_TURN = "no_assistant_turn"
    ENDS_IN_USER_TURN = "ends_in_user_turn"
    NO_PROMPT = "no_prompt"
    UNKNOWN_ROLE = "unknown_role"
    EMPTY_TURN = "empty_turn"
    UNSUPPORTED_PART = "unsupported_part"
    TEMPLATE_ERROR = "template_error"
    NON_FINITE = "non_finite"
    ENGINE_ERROR = "engine_error"


# What is wrong with such a row is wrong with the data or the model, whatever the options: too many
# of them fail a run.
BAD = (
    Status.EMPTY_ANSWER,
    Status.BAD_ROW,
    Status.NO_ASSISTANT_TURN,
    Status.NO_PROMPT,
    Status.UNKNOWN_ROLE,
    Status.EMPTY_TURN,
    Status.TEMPLATE_ERROR,
    Status.NON_FINITE,
    Status.ENGINE_ERROR,
)
