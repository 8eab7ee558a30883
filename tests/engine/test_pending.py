import pytest

from sf_ray.engine.pending import one_ahead


@pytest.mark.parametrize(
    ("alone", "order"),
    [
        ("", "a b A c B d C D"),
        ("c", "a b A B c C d D"),
        ("cd", "a b A B c C d D"),
        ("abcd", "a A b B c C d D"),
        ("a", "a A b c B d C D"),
    ],
)
def test_items_begin_before_the_one_before_is_finished_unless_they_are_to_be_alone(
    alone: str, order: str
) -> None:
    done: list[str] = []

    def begin(item: str) -> str:
        done.append(item)
        return item.upper()

    def finish(begun: str) -> str:
        done.append(begun)
        return begun

    assert list(one_ahead("abcd", begin, finish, lambda item: item in alone)) == list("ABCD")
    assert " ".join(done) == order


def test_nothing_to_begin_is_nothing() -> None:
    assert list(one_ahead([], str, str, bool)) == []
