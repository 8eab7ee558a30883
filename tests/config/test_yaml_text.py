import pytest
import yaml

from sf_ray.config.quotas import quota_from
from sf_ray.config.yaml_text import yaml_value


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["a0: &a0 {x: y}"]
    lines += [f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(12), "aliases"),
        (merges(12), "aliases"),  # large while it is built
        ("a: &a [*a]", "aliases"),
        ("a: &a {b: *a}", "aliases"),
        (f"a: &a {'x' * 10_000}\nb: [{', '.join(['*a'] * 200)}]", "aliases"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 2026-99-99", "month"),
        ("a: " + "b" * 2_000_000, "more than 1,000,000 characters"),
    ],
    ids=lambda text: text[:12],
)
def test_a_text_that_stands_for_too_much_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        yaml_value(text)


@pytest.mark.parametrize(
    "text",
    ["", "a: 1", "- a\n- b", "base: &b {x: 1, y: [1, 2]}\nmore: {<<: *b, z: 3}\nagain: [*b, *b]"],
)
def test_other_texts_have_the_value_that_yaml_gives(text: str) -> None:
    assert yaml_value(text) == yaml.safe_load(text)
    assert yaml_value(text, yaml.BaseLoader) == yaml.load(text, yaml.BaseLoader)


def test_a_quota_on_the_command_line_is_bounded_too() -> None:
    with pytest.raises(ValueError, match="aliases"):
        quota_from("source:{a: &a [*a]}")
