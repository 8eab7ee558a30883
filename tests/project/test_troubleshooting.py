"""The messages that docs/troubleshooting.md explains are messages that the code has."""

import ast
import functools
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "troubleshooting.md"


def quoted() -> list[str]:
    """First cells of the page's tables, as they stand between backticks."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [found[1] for line in lines if (found := re.match(r"\| `([^`]+)` \|", line))]


@functools.cache
def messages() -> list[str]:
    """Texts of the package, with three points in place of what is filled in."""
    found = []
    for path in (REPOSITORY / "sf_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "..." for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("words", quoted())
def test_the_words_are_those_of_the_code(words: str) -> None:
    assert any(words in message for message in messages())


def test_every_table_has_messages() -> None:
    tables = PAGE.read_text(encoding="utf-8").split("| --- | --- | --- |")[1:]
    assert len(tables) >= 7
    assert all("\n| `" in table for table in tables)
