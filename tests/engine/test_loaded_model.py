from pathlib import Path

import pytest
import torch

from sf_ray import SfRayError
from sf_ray.engine import loaded_model
from sf_ray.engine.engine import Engine
from sf_ray.engine.layers import onednn
from tests.engine.conftest import EngineOf


def test_a_model_whose_logits_are_not_its_heads_is_refused(
    tiny_model: Path, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine_of()._model
    nll = model.head.nll
    monkeypatch.setattr(model.head, "nll", lambda *states: nll(*states) * 2)
    with pytest.raises(SfRayError, match="LlamaForCausalLM computes its logits in a way"):
        model.check_head(tiny_model)


def test_a_note_says_that_the_cpu_has_no_instructions_for_a_type(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_model, "has_instructions", lambda dtype: False)
    assert "no instructions for bfloat16" in Engine(tiny_model, dtype="bfloat16").notes[0]
    assert Engine(tiny_model).notes == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_a_clear_error(tiny_model: Path) -> None:
    with pytest.raises(SfRayError, match="--device cuda: torch sees no CUDA device"):
        Engine(tiny_model, device="cuda")


def test_layers_that_stay_plain_are_told_in_one_note(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "supports", lambda _: False)
    (note,) = Engine(tiny_model).notes
    assert note.startswith("the model's linear layers stay plain, and slower: oneDNN's own layout")
