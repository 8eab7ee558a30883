"""The LM head: hidden states -> losses, without all of the logits at once. Knows torch alone."""

from collections.abc import Sequence
from typing import Any

import torch

from sf_ray.engine.layers.onednn import laid_out, product, supports
from sf_ray.engine.memory import cache_bytes

# Logits are computed in tiles of so many positions and bytes. On CPU a tile stays in the second
# cache of a core, and products with few columns are the faster ones: `docs/performance.md`.
_TILE_ROWS = {"cpu": 512, "cuda": 8192}
_TILE_BYTES = {"cpu": cache_bytes(2), "cuda": 1 << 30}


class LMHead:
    """Hidden states -> losses, with what the known architectures do to their logits."""

    def __init__(self, model: Any, dtype: str) -> None:
        config = model.config.get_text_config()
        projection = model.get_output_embeddings()
        self._weight: torch.Tensor = projection.weight.detach()
        self._bias = getattr(projection, "bias", None)
        self._dtype = getattr(torch, dtype)
        self._tiles: Sequence[torch.Tensor] = self._tiles_in(self._dtype)
        if self._weight.device.type == "cpu" and supports(self._dtype):
            self._tiles = [laid_out(tile, _TILE_ROWS["cpu"]) for tile in self._tiles]
        self._scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
        self._scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
        self._cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        self._logsumexp = self._tile

    @property
    def weight_bytes(self) -> int:
        """Of its weight in float32, which on CPU is there in two layouts."""
        return int(self._weight.nbytes)

    def compile(self) -> None:
        """From now on the logits of a tile are read once."""
        self._logsumexp = torch.compile(self._tile, dynamic=True)

    @torch.no_grad()
    def nll(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """[n, hidden size], [n] -> [n] float32: logsumexp(logits) - logits[target]."""
        rows = _TILE_ROWS[states.device.type]
        parts = zip(torch.split(states, rows), torch.split(targets, rows), strict=True)
        return torch.cat([self._rows(*part) for part in parts])

    def _rows(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Losses of some rows, from the logsumexp of each tile of the vocabulary."""
        device = states.device.type
        dtype = self._dtype if torch.is_autocast_enabled(device) else torch.float32
        tiles = self._tiles if dtype == self._dtype else self._tiles_in(dtype)
        biases = [None] * len(tiles) if self._bias is None else self._bias.split(len(tiles[0]))
        states = states.to(dtype)
        sums = [self._logsumexp(states, *tile) for tile in zip(tiles, biases, strict=True)]
        picked = (states.float() * self._weight[targets].to(dtype).float()).sum(1)
        picked = self._finish(picked, None if self._bias is None else self._bias[targets])
        return torch.stack(sums).logsumexp(0).sub_(picked)

    def _tiles_in(self, dtype: torch.dtype) -> Sequence[torch.Tensor]:
        """The weight in a type: [columns of a tile, hidden size] each."""
        device = self._weight.device.type
        columns = max(256, _TILE_BYTES[device] // (4 * _TILE_ROWS[device]))
        return torch.split(self._weight.to(dtype), columns)

    def _tile(
        self, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """The logsumexp of some columns of the logits."""
        multiply = product if weight.is_mkldnn else torch.nn.functional.linear
        logits = self._finish(multiply(states, weight).float(), bias)
        # One pass over a row while it is in the first cache; logsumexp makes several over all.
        return logits[:, 0] - torch.log_softmax(logits, 1)[:, 0]

    def _finish(self, logits: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if bias is not None:
            logits += bias
        if self._scale != 1.0:
            logits *= self._scale
        if self._cap:
            logits = self._cap * torch.tanh(logits / self._cap)
        return logits
