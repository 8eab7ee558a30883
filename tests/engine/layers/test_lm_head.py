from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from sf_ray.engine.engine import Engine
from sf_ray.engine.layers import lm_head
from sf_ray.engine.sequences import TokenSequences
from tests.engine.conftest import EngineOf
from tests.support.decoders import CAUSAL_MODELS, causal_model
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


@pytest.mark.parametrize("architecture", ["Llama", "Phi"])  # Phi's head has a bias
@pytest.mark.parametrize("most", [64, 100, 1000])
def test_aligned_tiles_do_not_change_a_loss(
    architecture: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CAUSAL_MODELS["Llama"] | {"vocab_size": 333, "num_hidden_layers": 1}
    model = causal_model(architecture, settings)
    projection = model.get_output_embeddings()
    if projection.bias is not None:
        projection.bias.data.normal_(0, 3)
    tiles = lm_head._aligned_tiles(projection.weight, most)
    widths = {len(tile) for tile in tiles}
    assert len(widths) == 1
    assert widths.pop() % 64 == 0
    assert torch.equal(torch.cat(list(tiles))[:333], projection.weight)
    states, targets = torch.randn(20, 32), torch.arange(313, 333)
    monkeypatch.setattr(lm_head.LMHead, "_tiles_in", lambda *_: tiles)
    losses = lm_head.LMHead(model, "float32").nll(states, targets)
    with torch.no_grad():
        expected = cross_entropy(projection(states), targets, reduction="none")
    torch.testing.assert_close(losses, expected)
