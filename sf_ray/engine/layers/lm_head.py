"""The LM head: hidden states -> losses, without all of the logits at once. Knows torch alone."""

from collections.abc import Sequence
from typing import Any

import torch

from sf_ray.engine.layers import onednn
from sf_ray.engine.memory import cache_bytes

# Logits are computed in tiles of this many positions and bytes. On CPU a tile fits the second cache
# of a core, because softmax then reads it from there, and because products with at most 768
# columns are 15 % faster than those with thousands (`docs/performance.md`).
_TILE_ROWS = {"cpu": 512, "cuda": 8192}
_TILE_BYTES = {"cpu": cache_bytes(2), "cuda": 1 << 30}
# On CUDA the columns of a tile are a multiple of this: a product with 17,489 columns, as GPT-2's
# vocabulary would leave them for its second tile, gets slower kernels.
_ALIGNED_COLUMNS = 64


class LMHead:
    """Hidden states -> losses, with what the known architectures do to their logits.

    Defined by `cross_entropy(logits(states), targets, reduction="none")`.
    """

    def __init__(self, model: Any, dtype: str) -> None:
        """
        Args:
            model: A causal language model with float32 weights.
            dtype: Type in which matrix products are computed.
        """
        config = model.config.get_text_config()
        projection = model.get_output_embeddings()
        self._weight: torch.Tensor = projection.weight.detach()
        self._bias = getattr(projection, "bias", None)
        self._dtype = getattr(torch, dtype)
        self._tiles: Sequence[torch.Tensor] = self._tiles_in(self._dtype)
        if self._weight.device.type == "cpu" and onednn.supports(self._dtype):
            self._tiles = [onednn.reorder_weight(tile, _TILE_ROWS["cpu"]) for tile in self._tiles]
        self._scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
        self._scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
        self._cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        self._logsumexp = self._tile_logsumexp

    @property
    def weight_bytes(self) -> int:
        """Bytes of the head's float32 weight, which on CPU is kept in a second layout as well."""
        return int(self._weight.nbytes)

    def compile(self) -> None:
        """Compiles what is done with a tile, so that its logits are read from memory once."""
        self._logsumexp = torch.compile(self._tile_logsumexp, dynamic=True)

    @torch.no_grad()
    def nll(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """[n] float32 losses in nats: logsumexp(logits) - logits[target].

        Args:
            states: [n, hidden size]
            targets: [n] token ids.
        """
        rows = _TILE_ROWS[states.device.type]
        parts = zip(torch.split(states, rows), torch.split(targets, rows), strict=True)
        return torch.cat([self._nll_of_rows(*part) for part in parts])

    def _nll_of_rows(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Losses of at most one tile's rows, from the logsumexp of each tile of the vocabulary."""
        device = states.device.type
        dtype = self._dtype if torch.is_autocast_enabled(device) else torch.float32
        # Another type is asked for where losses are repaired in float32.
        tiles = self._tiles if dtype == self._dtype else self._tiles_in(dtype)
        width = len(tiles[0])
        biases = [None] * len(tiles) if self._bias is None else self._bias.split(width)
        used = [min(width, len(self._weight) - i * width) for i in range(len(tiles))]
        states = states.to(dtype)
        sums = [self._logsumexp(states, *tile) for tile in zip(tiles, biases, used, strict=True)]
        target_logits = (states.float() * self._weight[targets].to(dtype).float()).sum(1)
        target_biases = None if self._bias is None else self._bias[targets]
        target_logits = self._adjusted(target_logits, target_biases)
        return torch.stack(sums).logsumexp(0).sub_(target_logits)

    def _tiles_in(self, dtype: torch.dtype) -> Sequence[torch.Tensor]:
        """The weight in a type, cut into tiles [columns of logits, hidden size]."""
        device = self._weight.device.type
        columns = max(256, _TILE_BYTES[device] // (4 * _TILE_ROWS[device]))
        weight = self._weight.to(dtype)
        return torch.split(weight, columns) if device == "cpu" else _aligned_tiles(weight, columns)

    def _tile_logsumexp(
        self, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, used: int
    ) -> torch.Tensor:
        """[n] the logsumexp of some columns of the logits.

        Args:
            states: [n, hidden size]
            weight: [columns, hidden size] a tile.
            bias: [used] the bias of the logits.
            used: Columns that are tokens; those behind them only fill up the tile.
        """
        linear = onednn.linear if weight.is_mkldnn else torch.nn.functional.linear
        logits = linear(states, weight)[:, :used].float()
        logits = self._adjusted(logits, bias)
        # log_softmax makes one pass over a row that is in the first cache; torch.logsumexp makes
        # several over all rows.
        return logits[:, 0] - torch.log_softmax(logits, 1)[:, 0]

    def _adjusted(self, logits: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Logits after the bias, scale and cap of the architecture; may change its argument."""
        if bias is not None:
            logits += bias
        if self._scale != 1.0:
            logits *= self._scale
        if self._cap:
            logits = self._cap * torch.tanh(logits / self._cap)
        return logits


def _aligned_tiles(weight: torch.Tensor, most: int) -> Sequence[torch.Tensor]:
    """A weight as tiles of equal width [columns, hidden size], the last one padded with zeros.

    Args:
        weight: [vocabulary, hidden size]
        most: Columns of a tile, at most but for the alignment.
    """
    count = -(-len(weight) // most)
    per_tile = -(-len(weight) // count)
    width = -(-per_tile // _ALIGNED_COLUMNS) * _ALIGNED_COLUMNS
    *tiles, last = torch.split(weight, width)
    return [*tiles, torch.nn.functional.pad(last, (0, 0, 0, width - len(last)))]
