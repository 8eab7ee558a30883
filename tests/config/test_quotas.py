import re

import pytest

from sf_ray.config.quotas import OTHERS, Quota, quota_from, rows_to_keep, text_of


@pytest.mark.parametrize(
    ("given", "column", "shares"),
    [
        ("source=0.1", "source", {OTHERS: 0.1}),
        ("source=500", "source", {OTHERS: 500}),
        ("meta.source = 1e-3", "meta.source", {OTHERS: 0.001}),
        ("a=b=1.0", "a=b", {OTHERS: 1.0}),
        ("source:{code: 0.2, chat: 5000}", "source", {"code": 0.2, "chat": 5000}),
        ('source: {code: 1, "*": 0.5}', "source", {"code": 1, OTHERS: 0.5}),
        # A language, a year and a truth value: as text in the corpus they are the same.
        ("lang:{no: 0.5, 2024: 1.0, true: 3}", "lang", {"no": 0.5, "2024": 1.0, "true": 3}),
        ("source={null: 1, 'a: b': 2}", "source", {"null": 1, "a: b": 2}),
        ({"source": 0.1}, "source", {OTHERS: 0.1}),
        ({"source": {"code": "0.2", None: 1, 2024: 0.0}}, "source",
         {"code": 0.2, "null": 1, "2024": 0.0}),
    ],
)  # fmt: skip
def test_a_quota_is_read_from_text_and_from_yaml(
    given: object, column: str, shares: dict[str, float]
) -> None:
    quota = quota_from(given)
    assert isinstance(quota, Quota)
    assert (quota.column, quota.shares) == (column, shares)
    # The way a number is written decides: 1 is a count of one row, 1.0 the fraction of all rows.
    assert [type(one) for one in quota.shares.values()] == [type(one) for one in shares.values()]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("source", "expected COLUMN=0.1"),
        ("=0.1", "expected COLUMN=0.1"),
        ("source{a: 1}", "expected COLUMN=0.1"),
        ("source:{a: 1", "expected"),
        ("source:{a: [1}", "cannot be read"),
        ("source:{}", "no value of source has a quota"),
        ("source=many", "expected a count like 5000 or a fraction like 0.2, not many"),
        ("source=1.5", "1.5 is more than all rows"),
        ("source=-1", "below 0"),
        ("source=nan", "below 0 or no number"),
        ("source:{a: {b: 1}}", "a: expected a count"),
        ({"source": 0.1, "lang": 0.2}, "one column can have quotas"),
        ({"lang": {False: 0.1}}, "YAML reads a value of lang as False: put it in quotes"),
        ({"lang": {"1": 0.1, 1: 2}}, "the value '1' of lang has two quotas"),
        ({"lang": {"a": True}}, "a: expected a count"),
    ],
)
def test_what_is_no_quota_is_said(given: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        quota_from(given)


def test_values_without_a_quota_keep_nothing_unless_others_have_one() -> None:
    named = Quota("source", {"code": 0.25, "chat": 7})
    assert [named.wanted(value, 100) for value in ("code", "chat", "web")] == [25, 7, 0]
    assert named.share("web") is None
    others = Quota("source", {"code": 0, OTHERS: 0.1})
    assert [others.wanted(value, 99) for value in ("code", "web")] == [0, 9]
    assert others.named == ["code"]


@pytest.mark.parametrize(
    ("rows", "keep", "kept"),
    [(999, 0.1, 99), (100, 0.29, 29), (10, 0.05, 0), (7, 1.0, 7), (0, 0.5, 0), (10, 3, 3)],
)
def test_a_fraction_counts_as_it_is_written_and_a_count_is_a_count(
    rows: int, keep: float, kept: int
) -> None:
    assert rows_to_keep(rows, keep) == kept


def test_values_are_named_as_they_are_written() -> None:
    values = ["web", 3, 2.5, True, None, b"\xff"]
    assert [text_of(value) for value in values] == ["web", "3", "2.5", "true", "null", "\\xff"]
    with pytest.raises(ValueError, match="is of type list"):
        text_of([1])


def test_the_name_of_a_long_value_is_short_and_its_own() -> None:
    long = "same beginning " * 200_000
    names = [text_of(long + end) for end in ("", "a", "b")]
    assert len(set(names)) == 3
    assert all(len(name) < 200 for name in names)
    assert all(name.startswith("same beginning") for name in names)
    assert [text_of(name) for name in names] == names
    quota = quota_from({"source": {long + "a": 5}})
    assert isinstance(quota, Quota)
    assert quota.share(names[1]) == 5
    assert text_of("x" * 200) == "x" * 200
    assert len(text_of(b"\xff" * 10**6)) < 200
