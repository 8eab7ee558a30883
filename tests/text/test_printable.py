import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.text.printable import MOST_CHARACTERS, printable, printable_json, printable_lines

# What must never leave, whatever Python's own `isprintable` says of it.
_HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def any_text() -> st.SearchStrategy[str]:
    # `characters` leaves out surrogates unless they are asked for; names of files have them.
    return st.text(st.characters(codec=None, exclude_categories=[]), max_size=600)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("part-0001.jsonl", "part-0001.jsonl"),
        ("Ärger/日本　語/🎉", "Ärger/日本　語/🎉"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),  # clears the screen
        ("a\x9b2Jb", "a\\x9b2Jb"),  # the same in one C1 byte
        ("a\rerror: none", "a\\rerror: none"),
        ("a\nnote: all is well", "a\\nnote: all is well"),
        ("a\x85b\u2028c\u2029d", "a\\x85b\\u2028c\\u2029d"),  # other line breaks
        ("a\u202egnp.exe", "a\\u202egnp.exe"),  # Trojan Source
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("a\u200bb\u200db\ufeff\u2060", "a\\u200bb\\u200db\\ufeff\\u2060"),
        ("\u3164\u115f", "\\u3164\\u115f"),  # letters that are drawn as nothing
        ("\U000e0041", "\\U000e0041"),  # a tag: text within text
        ("caf\udce9", "caf\\udce9"),  # a name of a file that is not UTF-8
        ("a\tb\x00c\x7f", "a\\tb\\x00c\\x7f"),
        (b"a\n", "b'a\\n'"),
        (None, "None"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(text: object, expected: str) -> None:
    assert printable(text) == expected


def test_a_long_name_keeps_both_ends() -> None:
    name = "folder/" + "x" * 10_000 + "-0042.jsonl"
    shown = printable(name)
    assert len(shown) < MOST_CHARACTERS + 50
    assert shown.startswith("folder/xxx")
    assert shown.endswith("xxx-0042.jsonl")
    assert "[... 9,518 characters ...]" in shown


def test_lines_of_our_own_stay_lines_and_others_cannot_begin_one() -> None:
    name = "a\nerror: forged\x1b[1A"
    assert printable_lines(f"two shards:\n\t{name}", indent="  ") == (
        "two shards:\n  \ta\n  error: forged\\x1b[1A"
    )


@given(any_text())
def test_no_character_of_any_text_can_do_harm(text: str) -> None:
    shown, lines = printable(text), printable_lines(text)
    as_json = printable_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(as_json) == text
    without_joiners = lines.translate(dict.fromkeys(map(ord, "\t\u200c\u200d")))
    for line in (shown, as_json, *without_joiners.split("\n")):
        assert not {unicodedata.category(char) for char in line} & _HARMFUL
        line.encode()  # any stream can write it
        assert len(line.splitlines()) <= 1
    assert lines.count("\n") == text.count("\n")
    assert printable(shown, most=10**9) == shown


@given(
    st.text(
        st.characters(categories=["L", "N", "P"], exclude_characters="\u115f\u1160\u3164\uffa0")
    )
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text, most=len(text)) == text
    assert printable_lines(text) == text


def test_a_line_is_cut_where_that_is_asked_for() -> None:
    assert printable_lines("a" * 10 + "\nb", most=4) == "aa[... 6 characters ...]aa\nb"


def test_a_text_keeps_the_joiners_of_its_script() -> None:
    word, emoji = "\u0645\u06cc\u200c\u062e", "👩\u200d🚀"
    text = f"{word} {emoji}\r\na\u200db"
    assert printable_lines(text) == f"{word} {emoji}\na\\u200db"
    assert "\u200c" not in printable(text)


def test_json_keeps_its_lines_and_what_can_be_read() -> None:
    value = {"ü": ["a\x7f\x9b2J\u202e\ud800\U000e0041", "b"]}
    text = printable_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert text.splitlines()[1:3] == [
        ' "ü": [',
        '  "a\\u007f\\u009b2J\\u202e\\ud800\\udb40\\udc41",',
    ]
