"""The status of a row: whether the row has a score, or why not. Plain values."""

from enum import StrEnum

_BAD = True


class Status(StrEnum):
    """Whether a row has an IFD score, or why not. The value is what score tables hold.

    Attributes:
        meaning: What the status means, for people.
        is_bad: Whether the data or the model is at fault, whatever the options are. A run fails
            when too many of its rows are bad.
    """

    meaning: str
    is_bad: bool

    def __new__(cls, value: str, meaning: str = "", is_bad: bool = False) -> "Status":
        """Makes a member from its row of the table below."""
        status = str.__new__(cls, value)
        status._value_ = value
        status.meaning = meaning
        status.is_bad = is_bad
        return status

    OK = "ok", "has a score; only these can be kept"
    EMPTY_ANSWER = "empty_answer", "the answer has no tokens", _BAD
    ANSWER_TOO_SHORT = "answer_too_short", "no token of the answer to average over"
    PROMPT_FILLS_WINDOW = "prompt_fills_window", "the prompt leaves the answer no room"
    BAD_ROW = "bad_row", "a field is missing, null or no text", _BAD
    NO_ASSISTANT_TURN = "no_assistant_turn", "a chat without an answer to score", _BAD
    ENDS_IN_USER_TURN = "ends_in_user_turn", "a chat whose last message is not an answer"
    NO_PROMPT = "no_prompt", "nothing stands before the only answer", _BAD
    UNKNOWN_ROLE = "unknown_role", "a message of a role that no format knows", _BAD
    EMPTY_TURN = "empty_turn", "a message that says nothing", _BAD
    UNSUPPORTED_PART = "unsupported_part", "a part of a message, or a field beside it, is no text"
    TEMPLATE_ERROR = "template_error", "the template fails on the row", _BAD
    NON_FINITE = "non_finite", "the model gave a value that is not finite", _BAD
    ENGINE_ERROR = "engine_error", "the model fails on the row", _BAD


BAD = tuple(status for status in Status if status.is_bad)
