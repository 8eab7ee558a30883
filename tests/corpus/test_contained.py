from collections.abc import Callable

import pytest

from sf_ray.corpus.contained import contained, problem
from sf_ray.corpus.examples import Problem
from sf_ray.corpus.fields import refuse
from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError


def deep() -> int:
    return deep() + 1


def raises(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (deep, "nested too deeply"),
        (lambda: bytearray(1 << 62), "more memory than there is"),
        (lambda: "\ud800".encode(), "UnicodeEncodeError"),
        (lambda: int("9" * 5000), "ValueError"),
        (lambda: float(10**400), "OverflowError"),
        (lambda: {}["a"], "KeyError"),
        (lambda: None.text, "AttributeError"),  # type: ignore[attr-defined]
        (lambda: 1 + "1", "TypeError"),  # type: ignore[operator]
    ],
)
def test_whatever_a_row_raises_becomes_its_problem(make: Callable[[], object], words: str) -> None:
    found = contained(make)
    assert isinstance(found, Problem)
    assert found.status is Status.BAD_ROW
    assert words in found.reason


def test_a_refusal_keeps_its_status() -> None:
    assert contained(refuse, "no", Status.EMPTY_TURN) == Problem(Status.EMPTY_TURN, "no")


def test_what_is_meant_to_end_the_run_does() -> None:
    with pytest.raises(SfRayError, match="mixed"):
        contained(raises(SfRayError("mixed formats")))
    with pytest.raises(KeyboardInterrupt):
        contained(raises(KeyboardInterrupt()))


def test_a_reason_does_not_quote_a_whole_row() -> None:
    assert len(problem("x" * 10**6).reason) < 400
    found = contained(raises(ValueError("y" * 10**6)))
    assert isinstance(found, Problem)
    assert len(found.reason) < 400
