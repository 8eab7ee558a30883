"""Decoders whose layers cannot be compiled, or change their results.

That compiled layers give the right losses is tested on CUDA, in tests/engine/test_engine.py.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sf_ray.engine.layers.compiled import compile_layers
from tests.support.decoders import decoder_of, hidden

CPU = torch.device("cpu")
Forward = Callable[..., torch.Tensor]


def wrong(forward: Forward, **_: Any) -> Forward:
    return lambda *states, **others: forward(*states, **others) + 1


def failing(forward: Forward, **_: Any) -> Forward:
    def call(*states: Any, **others: Any) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler\nand more")

    return call


@pytest.mark.parametrize(
    ("compiler", "why_not"),
    [(wrong, "results change by"), (failing, "RuntimeError: Failed to find C compiler$")],
)
def test_layers_that_do_not_compile_are_left_as_they_were(
    compiler: Forward, why_not: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of("Llama")
    expected = hidden(decoder)
    monkeypatch.setattr(torch, "compile", compiler)
    reason = compile_layers(decoder, "float32", CPU)
    assert reason is not None
    assert re.search(why_not, reason)
    assert torch.equal(hidden(decoder), expected)


def test_every_layer_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of("Llama")
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda forward, **_: compiled.append(1) or forward)
    assert compile_layers(decoder, "float32", CPU) is None
    assert len(compiled) == 2


def test_a_decoder_without_a_list_of_layers_is_left_uncompiled() -> None:
    assert compile_layers(torch.nn.Sequential(), "float32", CPU) == "they are not in one list"
