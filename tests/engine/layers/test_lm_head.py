from pathlib import Path

import numpy as np
import pytest

from sf_ray.engine.engine import Engine
from sf_ray.engine.layers import lm_head
from sf_ray.engine.sequences import TokenSequences
from tests.engine.conftest import EngineOf
from tests.support.sequences import random_sequences


def test_the_tiles_of_the_head_do_not_change_a_loss(
    tiny_model: Path, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = TokenSequences.of(random_sequences(30))
    whole = engine_of().losses(sequences)
    monkeypatch.setitem(lm_head._TILE_ROWS, "cpu", 7)
    monkeypatch.setitem(lm_head._TILE_BYTES, "cpu", 1)
    tiled = Engine(tiny_model).losses(sequences)
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, equal_nan=True)
