"""Texts -> embeddings of norm 1, by a small encoder on a device.

The encoder is any model that sentence-transformers loads, with the pooling that comes with it, or
else the mean over tokens. Does not know which rows the texts belong to.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sf_ray.encoding.specs import ModelSpec
from sf_ray.errors import SfRayError
from sf_ray.selection.diversity.embedding_set import Embeddings16

_BATCH_ROWS = {"cpu": 32, "cuda": 256}
# No text has as many characters to a token: what lies behind the encoder's window at this rate is
# cut off, because tokenising text that the encoder does not see costs time for nothing.
_CHARACTERS_A_TOKEN = 64


class Embedder:
    """A loaded encoder."""

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None) -> None:
        """
        Args:
            path: Directory of the encoder.
            device: "cpu" or "cuda".
            threads: CPU threads to compute with; None leaves the choice to torch.

        Raises:
            SfRayError: The encoder cannot be loaded.
        """
        require_library("--encoder")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._encoder = SentenceTransformer(
                str(path), device=device, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # its files may be anybody's, and raise anything
            raise SfRayError(f"encoder {path} cannot be loaded: {error}") from error
        self._batch_rows = _BATCH_ROWS[device]
        window = self._encoder.get_max_seq_length()
        self._characters = window * _CHARACTERS_A_TOKEN if window else None

    def embed(self, texts: Sequence[str]) -> Embeddings16:
        """[n] texts -> [n, d] of norm 1; n is at least 1.

        Of a long text the encoder sees only the beginning.

        Raises:
            SfRayError: An embedding is not finite.
        """
        cut = [text[: self._characters] for text in texts]
        embeddings = self._encoder.encode(
            cut,
            batch_size=self._batch_rows,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        finite = np.isfinite(embeddings).all(axis=1)
        if not finite.all():
            text = texts[int(finite.argmin())][:80]
            raise SfRayError(
                f"the encoder gives an embedding that is not finite, e.g. of {text!r}; use another "
                "--encoder"
            )
        return np.asarray(embeddings, np.float16)


def require_library(flag: str) -> None:
    """Checks that encoders can be loaded at all.

    Args:
        flag: The option that needs one.

    Raises:
        SfRayError: sentence-transformers is not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise SfRayError(
            f"{flag} needs one more package; install it with `pip install 'sf_ray[diversity]'`"
        )


@dataclass(frozen=True)
class EmbedderSpec:
    """How every node finds and loads the encoder. Small: it is sent to the actors."""

    model: ModelSpec

    def start(self, device: str, threads: int | None) -> "Embedder":
        """Loads the encoder; arguments as those of `Embedder`."""
        return Embedder(self.model.resolve().path, device, threads)
