"""What several benches take their rows and figures from."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.common import load_rows, overlap_of_best, record

ROWS = [
    {"source": "a", "instruction": "one", "input": "", "output": "two"},
    {"source": "b", "instruction": "three", "input": None, "output": "four"},
]


def write(folder: Path, rows: list[dict[str, object]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), folder / "0.parquet")
    return str(folder)


def test_a_corpus_with_too_few_rows_is_repeated_with_other_beginnings(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path, ROWS), 5).to_pylist()
    assert rows[:2] == ROWS
    # Empty texts and columns that are not scored stay; the texts share no prefix with the first.
    assert rows[2:4] == [
        {"source": "a", "instruction": "1 one", "input": "", "output": "1 two"},
        {"source": "b", "instruction": "1 three", "input": None, "output": "1 four"},
    ]
    assert rows[4]["instruction"] == "2 one"
    assert len(rows) == 5


def test_a_corpus_with_enough_rows_is_taken_as_it_is(tmp_path: Path) -> None:
    assert load_rows(write(tmp_path, ROWS), 1).to_pylist() == ROWS[:1]


def test_chats_are_not_repeated(tmp_path: Path) -> None:
    corpus = write(tmp_path, [{"messages": [{"role": "user", "content": "hello"}]}])
    assert load_rows(corpus, 1).num_rows == 1
    with pytest.raises(SystemExit, match="column messages is list"):
        load_rows(corpus, 2)


def test_figures_are_appended_where_there_is_a_file(tmp_path: Path) -> None:
    record(None, {"speed": 1.0})
    record(str(tmp_path / "figures.jsonl"), {"speed": 1.0})
    record(str(tmp_path / "figures.jsonl"), {"speed": 2.0})
    lines = (tmp_path / "figures.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [1.0, 2.0]


def test_the_best_rows_are_compared_as_sets() -> None:
    truth = np.array([0.9, 0.8, 0.1, 1.5])  # a score of 1 or more is not among the best
    assert overlap_of_best(np.array([0.7, 0.75, 0.2, 2.0]), truth, 0.5) == 1
    assert overlap_of_best(np.array([0.7, 0.1, 0.2, 0.0]), truth, 0.5) == 0.5
