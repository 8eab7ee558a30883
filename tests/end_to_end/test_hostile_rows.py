"""Rows that a stranger made to end a run, through all that happens to a row without a model."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.fields import DEEPEST
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.readers.json_lines import LINES
from sf_ray.corpus.rows import BadLine, rows_of
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.text_encoder import PlainTextEncoder, backend_of
from sf_ray.output.export_formats import exporter
from tests.support.engines import load

DEPTHS = (DEEPEST - 8, DEEPEST + 1, 330, 500, 900, 5000, 100_000)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def objects(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def chat(answer: str) -> str:
    return '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", ' + answer + "}]}"


def call(arguments: str) -> str:
    return (
        f'"content": "", "tool_calls": [{{"function": {{"name": "f", "arguments": {arguments}}}}}]'
    )


HOSTILE = [
    *(chat(call(nested(depth))) for depth in DEPTHS),
    *(chat(call(objects(depth))) for depth in DEPTHS),
    *(chat(call(json.dumps(nested(depth)))) for depth in DEPTHS),
    *(chat(f'"content": "b\\ud800", "x": {nested(depth)}') for depth in DEPTHS),
    *(chat(f'"content": "b"}}], "tools": {nested(depth)}, "y": [{{"z": 1') for depth in DEPTHS),
    *(chat(f'"content": "b"}}], "tools": {json.dumps(nested(d))}, "y": [{{"z": 1') for d in DEPTHS),
    *(
        chat('"content": "b", "weight": ' + weight)
        for weight in ("1" + "0" * 400, "1e999", "-1e999")
    ),
    *(chat('"content": "b", "weight": ' + weight) for weight in ("NaN", "Infinity", "9" * 5000)),
    chat('"content": ' + "9" * 5000),
    chat('"content": ' + "9" * 4000),
    chat('"content": "b\\udfff"'),
    chat('"content": [{"type": {"a": ' + nested(90) + "}}]"),
    chat('"content": [{"type": "' + "x" * 10**6 + '"}]'),
    chat('"role": "' + "x" * 10**6 + '", "content": "b"'),
    chat('"role": "user", "role": "assistant", "content": "b", "content": "c"'),
    chat(call('{"a": 1e999}')),
    chat(call('{"a": NaN, "b": -Infinity}')),
    chat(call('"' + "9" * 5000 + '"')),
    chat(call('{"a\\ud800": "\\udfff"}')),
    '{"messages": ' + json.dumps(nested(100_000)) + "}",
    '{"messages": ' + json.dumps("[" * 100_000) + "}",
    '{"messages": {"role": ["user"], "content": ' + nested(100) + "}}",
    '{"messages": null, "messages": 1}',
    '{"messages": "\\ud83d"}',
]


def row_of(line: str) -> Any:
    table = pa.table([pa.array([line.encode()], pa.large_binary())], schema=LINES)
    (row,) = rows_of(table)
    return row


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: f"{len(line)}:{line[66:110]!a}")
def test_no_row_ends_a_run(line: str, tiny_model: Path) -> None:
    row = row_of(line)
    if isinstance(row, BadLine):
        assert len(row.reason) < 400
        return
    row_format = resolve_format(list(row), "messages")
    rendered = row_format.render(row)
    if isinstance(rendered, Problem):
        assert len(rendered.reason) < 400
    _, tokenizer = load(tiny_model)
    assert len(Encoder(tokenizer, 32).encode([rendered])) == 1
    for name in ("openai", "trl", "alpaca", "llama-factory"):
        exported = exporter(name, row_format)(row)
        if isinstance(rendered, Example):
            json.dumps(exported, allow_nan=False)
        else:
            assert exported is None


@pytest.mark.parametrize("depth", [DEEPEST + 1, 500, 900])
def test_a_deep_value_costs_a_row_only_where_it_is_used(depth: int) -> None:
    line = '{"instruction": "a", "output": "b", "input": "", "meta": ' + nested(depth) + "}"
    row = row_of(line)
    assert isinstance(resolve_format(list(row), "alpaca").render(row), Example)
    found = resolve_format(list(row), "alpaca", {"input": "meta"}).render(row)
    assert isinstance(found, Problem)
    assert found.status is Status.BAD_ROW
    assert found.reason == f"'meta' is nested more than {DEEPEST} levels deep, expected text"


def test_a_cell_that_python_cannot_hold_is_absent() -> None:
    times = pa.array([2**62, 1], pa.int64()).cast(pa.timestamp("us", tz="Nowhere/Else"), safe=False)
    rows = list(rows_of(pa.table({"a": times, "b": pa.array(["x", "y"])})))
    assert [row["b"] for row in rows if not isinstance(row, BadLine)] == ["x", "y"]


def test_a_tokenizer_that_refuses_a_text_costs_that_row_only(tiny_model: Path) -> None:
    class Refusing:
        def encode(self, texts: Any) -> Any:
            if any("bad" in text for text in texts):
                raise ValueError("no token for it")
            return plain.encode(texts)

    _, tokenizer = load(tiny_model)
    plain = PlainTextEncoder(backend_of(tokenizer))
    examples = [Example.pair("a", "word"), Example.pair("a", "bad"), Example.pair("b", "word")]
    with_refusals = list(Encoder(tokenizer, 32, texts=Refusing()).encode(examples))
    without = list(Encoder(tokenizer, 32).encode(examples))
    assert [row.status for row in with_refusals] == [Status.OK, Status.BAD_ROW, Status.OK]
    assert "no token for it" in with_refusals[1].reason
    for i in (0, 2):
        assert (
            with_refusals[i].conditioned[0].ids.tolist() == without[i].conditioned[0].ids.tolist()
        )
