"""The code still prints the messages that docs/troubleshooting.md explains."""

import ast
import functools
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "troubleshooting.md"


def quoted() -> list[str]:
    """The messages in the first cells of the page's tables, without their backticks."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [match[1] for line in lines if (match := re.match(r"\| `([^`]+)` \|", line))]


@functools.cache
def messages() -> list[str]:
    """All strings of the package, with three dots in place of what an f-string fills in."""
    texts = []
    for path in (REPOSITORY / "sf_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "..." for p in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


@pytest.mark.parametrize("words", quoted())
def test_the_words_are_those_of_the_code(words: str) -> None:
    assert any(words in message for message in messages())


def test_every_table_has_messages() -> None:
    tables = PAGE.read_text(encoding="utf-8").split("| --- | --- | --- |")[1:]
    assert len(tables) >= 7
    assert all("\n| `" in table for table in tables)
