"""What `bench/near_copies.py` plants is what its kinds say. Without Ray and encoders."""

import random
from collections import Counter

import pytest

pytest.importorskip("psutil")

from bench.near_copies import EDITS, by_signatures, plant
from sf_ray.selection.near.signatures import shingles_of, signatures_of
from tests.support.near import jaccard

ROW = {
    "instruction": "Describe how people make bread.",
    "input": "",
    "output": "People mix flour and water. The dough must rest for an hour. Then it is baked! "
    "Many people also add salt, and some of them use milk.",
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_changes_a_row_and_leaves_most_of_it(kind: str) -> None:
    for seed in range(20):
        edited = EDITS[kind](random.Random(seed), dict(ROW))
        assert edited != ROW
        words = [
            Counter(" ".join(row.values()).lower().replace(".", "").split())
            for row in (ROW, edited)
        ]
        assert (words[0] & words[1]).total() > 0.5 * words[0].total()


def test_planted_rows_stand_behind_those_that_they_were_made_of() -> None:
    import pyarrow as pa

    rows = [{name: f"{text} {number}" for name, text in ROW.items()} for number in range(40)]
    planted = plant(pa.Table.from_pylist(rows), 16)
    assert len(planted.texts) == 56
    assert Counter(planted.kinds) == dict.fromkeys(EDITS, 2)
    for copy, source in enumerate(planted.sources.tolist()):
        assert planted.texts[40 + copy] != planted.texts[source]
    assert len(set(planted.sources.tolist())) == 16


def test_planted_rows_are_found_by_their_signatures() -> None:
    texts = ["a b c d e f g h", "q r s t u v w x", "a b c d e f g z"]
    assert jaccard(texts[0], texts[2], 3) == pytest.approx(5 / 7)
    signatures = signatures_of(map(shingles_of, texts))
    import numpy as np

    assert by_signatures(signatures, np.array([0.5, 0.9, 0.7]), 0.5) == {0}
