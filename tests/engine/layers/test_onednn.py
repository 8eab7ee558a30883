"""Machines, and builds of torch, on which oneDNN's operators fail or do not exist."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from sf_ray.engine.layers import onednn
from sf_ray.engine.layers.lm_head import LMHead
from sf_ray.engine.layers.packed_linear import pack_linear_layers
from tests.support.decoders import SETTINGS, decoder_of, hidden, linears, model_of


@pytest.fixture
def fresh_trial() -> Iterator[None]:
    """`supports` tries again in the test, and once more after it."""
    onednn.supports.cache_clear()
    yield
    onednn.supports.cache_clear()


def refuse(*_: object) -> torch.Tensor:
    raise RuntimeError("the bf16 path needs CPU support that is not here")


def wrong(states: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.zeros(len(states), 32, dtype=states.dtype)


@pytest.mark.usefixtures("fresh_trial")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("operator", "stands_in"),
    [("reorder_weight", refuse), ("linear", refuse), ("linear", wrong), ("linear_times", refuse)],
)
def test_where_an_operator_fails_or_is_wrong_layers_and_head_stay_plain(
    operator: str, stands_in: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, operator, stands_in)
    decoder = decoder_of("Llama")
    expected = hidden(decoder, low=dtype == "bfloat16")
    assert not onednn.supports(getattr(torch, dtype))
    why_not = pack_linear_layers(decoder, dtype, 64)
    assert why_not == f"oneDNN's own layout does not work in {dtype} on this machine"
    assert all(type(m) is nn.Linear for m in linears(decoder))
    assert torch.equal(hidden(decoder, low=dtype == "bfloat16"), expected)
    head = LMHead(model_of("Llama"), dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        losses = head.nll(torch.ones(3, SETTINGS["hidden_size"]), torch.arange(3))
    assert bool(torch.isfinite(losses).all())


@pytest.mark.usefixtures("fresh_trial")
def test_a_torch_without_the_operator_keeps_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        pass

    monkeypatch.setattr(torch.ops, "mkldnn", Without())
    assert not onednn.supports(torch.float32)
    assert not onednn.supports(torch.bfloat16)
