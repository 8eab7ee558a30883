"""The definition of packed attention, and what can be said of its kernels without a card."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from sf_ray.engine.attention import packed as packed_attention
from sf_ray.engine.attention.packed import Segments, States, attend_each

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
# a b c d, a b x, q r: the second sequence begins like the first.
PATHS = [[0, 1, 2, 3], [0, 1, 4], [5, 6]]
OWN = [4, 1, 2]
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def states(device: str = "cpu", dtype: torch.dtype = torch.float32) -> States:
    torch.manual_seed(0)
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    return States(*(torch.randn(7, n, WIDTH, device=device, dtype=dtype) for n in heads))


def segments(device: str = "cpu") -> Segments:
    def put(numbers: Any, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.as_tensor(np.asarray(numbers), dtype=dtype, device=device)

    fed = [len(path) for path in PATHS]
    return Segments(
        put(np.cumsum([0, *OWN])),
        put(np.cumsum([0, *fed])),
        put(np.concatenate(PATHS), torch.int64),
        torch.tensor([max(OWN), max(fed), 1]),
    )


@pytest.mark.parametrize("window", [0, 1, 2, 3])
def test_each_token_sees_the_tokens_of_its_own_sequence(window: int) -> None:
    given, scale = states(), 0.7
    attended = attend_each(given, segments(), scale, window)
    for path in PATHS:
        query, key, value = (part[path].transpose(0, 1)[None] for part in given)
        behind = torch.arange(len(path))[:, None] - torch.arange(len(path))
        visible = (behind >= 0) & (behind < (window or len(path)))
        alone = scaled_dot_product_attention(
            query, key, value, attn_mask=visible, scale=scale, enable_gqa=True
        )
        torch.testing.assert_close(attended[path], alone[0].transpose(0, 1))


@pytest.mark.parametrize("window", [0, 2])
def test_kernels_take_what_they_are_given(window: int) -> None:
    given = [states("meta", dtype) for dtype in (torch.float16, torch.float32)]
    flash, by_operator, efficient = (
        packed_attention._flash.__wrapped__(),
        packed_attention._flash_by_operator,
        packed_attention._memory_efficient,
    )
    for kernel, of_type in ((flash, 0), (by_operator, 0), (efficient, 1)):
        attended = kernel(given[of_type], segments("meta"), 0.7, window)
        assert attended.shape == given[of_type].query.shape
        assert attended.dtype == given[of_type].query.dtype


def test_the_kernel_of_torch_gets_the_arguments_that_its_release_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    calls: list[dict[str, Any]] = []

    def torch_2_13(
        query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, *,
        scale: Any = None, window_size: Any = (-1, -1), enable_gqa: bool = False,
        num_splits: int | None = None,
    ) -> Any:  # fmt: skip
        calls.append({"longest": (max_q, max_k), "window": window_size, "splits": num_splits})
        return query

    def without_splits(
        query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, *,
        scale: Any = None, window_size: Any = (-1, -1), enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        calls.append({"longest": (max_q, max_k), "window": window_size})
        return query

    def torch_2_10(
        query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int,
        is_causal: bool = False, return_aux: Any = None,
    ) -> Any:  # fmt: skip
        raise AssertionError("takes no scale")

    for release in (torch_2_13, without_splits):
        monkeypatch.setattr(varlen, "varlen_attn", release)
        for window in (0, 3):
            packed_attention._flash.__wrapped__()(states(), segments(), 0.7, window)
    longest = (max(OWN), 4)
    assert calls == [
        {"longest": longest, "window": (-1, 0), "splits": 1},
        {"longest": longest, "window": (2, 0), "splits": 1},
        {"longest": longest, "window": (-1, 0)},
        {"longest": longest, "window": (2, 0)},
    ]
    monkeypatch.setattr(varlen, "varlen_attn", torch_2_10)
    assert packed_attention._flash.__wrapped__() is packed_attention._flash_by_operator


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float32, 1e-5)],
)
def test_kernels_on_cuda_give_what_the_definition_gives(
    dtype: torch.dtype, tolerance: float, window: int
) -> None:
    given = states("cuda", dtype)
    attended = packed_attention._attend(given, segments("cuda"), 0.7, window)
    in_float32 = States(*(part.float() for part in given))
    expected = attend_each(in_float32, segments("cuda"), 0.7, window)
    torch.testing.assert_close(attended.float(), expected, rtol=tolerance, atol=tolerance)
