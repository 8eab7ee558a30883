"""Encoders: texts -> embeddings. No Ray."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sf_ray.engine.model_files import resolve_model
from sf_ray.errors import SfRayError
from sf_ray.selection.diversity.embedder import Embedder
from sf_ray.storage.location import Location
from tests.support.encoders import make_encoder


def test_texts_become_vectors_of_length_1_whatever_stands_beside_them(tiny_encoder: Path) -> None:
    embedder = Embedder(tiny_encoder)
    texts = ["the a of", "to and in is it you that was", "the", "words nobody knows"]
    together = embedder.embed(texts).astype(float)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-3)
    alone = np.concatenate([embedder.embed([text]) for text in texts]).astype(float)
    np.testing.assert_allclose(together, alone, atol=2e-3)
    assert np.abs(together[0] - together[1]).max() > 0.05  # they are not all the same


def test_what_an_encoder_cannot_see_of_a_long_text_costs_nothing(tiny_encoder: Path) -> None:
    embedder = Embedder(tiny_encoder)
    text = "the a of to " * 16  # fills the window of 64
    long = text + "hot word " * 1_000_000
    assert np.array_equal(embedder.embed([text]), embedder.embed([long]))


@pytest.mark.weights
def test_minilm_tells_what_is_alike() -> None:
    embedder = Embedder(resolve_model("minilm").path)
    cat, kitten, tax = embedder.embed(
        ["How do I feed my cat?", "What do kittens eat?", "File an income tax return."]
    ).astype(float)
    assert cat @ kitten > 0.5 > 0.3 > cat @ tax


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_embeddings_of_cpu(tiny_encoder: Path) -> None:
    texts = ["the a of", "to and in is it you that was", "the"] * 200
    here = Embedder(tiny_encoder).embed(texts).astype(float)
    there = Embedder(tiny_encoder, "cuda").embed(texts).astype(float)
    np.testing.assert_allclose(there, here, atol=3e-3)


def test_an_encoder_that_gives_no_numbers_is_an_error(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(tiny_encoder)
    monkeypatch.setattr(
        embedder._encoder, "encode", lambda texts, **_: np.full((len(texts), 4), np.nan)
    )
    with pytest.raises(SfRayError, match="not finite, e.g. of 'the a'"):
        embedder.embed(["the a"])


def test_a_directory_that_is_no_encoder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SfRayError, match=f"encoder {tmp_path} cannot be loaded"):
        Embedder(tmp_path)


def test_without_the_library_it_is_said_how_to_get_it(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SfRayError, match="pip install 'sf_ray\\[diversity\\]'"):
        Embedder(tiny_encoder)


def test_an_encoder_is_fetched_with_its_pooling(
    tiny_encoder: Path, tmp_path: Path, place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SF_RAY_CACHE", str(tmp_path / "cache"))
    place.fs.put(f"{tiny_encoder}/", place.path, recursive=True)
    found = resolve_model(place.uri, place.storage_options)
    assert (found.path / "1_Pooling" / "config.json").is_file()
    here = resolve_model(str(tiny_encoder))
    assert found.fingerprint == here.fingerprint
    text = ["the a of"]
    assert np.array_equal(Embedder(found.path).embed(text), Embedder(here.path).embed(text))


def test_another_pooling_is_another_encoder(tiny_encoder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_encoder, other)
    config = other / "1_Pooling" / "config.json"
    assert "mean" in config.read_text()
    config.write_text(config.read_text().replace('"mean"', '"cls"'))
    one, two = resolve_model(str(tiny_encoder)), resolve_model(str(other))
    assert one.fingerprint != two.fingerprint
    texts = ["the a of"]
    assert not np.array_equal(Embedder(one.path).embed(texts), Embedder(two.path).embed(texts))


def test_encoders_made_twice_are_one(tmp_path: Path) -> None:
    one, two = make_encoder(tmp_path / "one"), make_encoder(tmp_path / "two")
    assert resolve_model(str(one)).fingerprint == resolve_model(str(two)).fingerprint
