"""Linear layers on CPU by oneDNN, with weights reordered once into the layout it is fastest with.

Without that, oneDNN is no faster than MKL, by which PyTorch multiplies float32
(`docs/performance.md`). Knows torch alone; the operators are those that torch's own compiler calls.
"""

import functools

import torch

# In float16 no CPU was faster this way.
DTYPES = (torch.float32, torch.bfloat16)
# How far products may be from PyTorch's own: sums of 64 numbers in another order, then rounded.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@functools.cache
def supports(dtype: torch.dtype) -> bool:
    """Whether reordered weights of a type work on this machine with this torch.

    This is tried, once in a process: a CPU may lack the instructions for a type, or a build of
    torch the operator, and neither the name of the platform nor a version says so.
    """
    if dtype not in DTYPES:
        return False
    always = torch.Generator().manual_seed(0)
    states, weight, factor = (torch.randn(32, n, generator=always).to(dtype) for n in (64, 64, 32))
    bias = torch.randn(32, generator=always).to(dtype)
    plain = torch.nn.functional.linear(states.float(), weight.float(), bias.float())
    expected = (plain, torch.nn.functional.silu(plain), plain * factor.float())
    try:
        reordered = reorder_weight(weight, len(states))
        actual = (
            linear(states, reordered, bias),
            linear(states, reordered, bias, "swish"),
            linear_times(states, reordered, bias, factor),
        )
    except (RuntimeError, AttributeError):  # the operator fails here, or does not exist
        return False
    atol = 10 * _TOLERANCE[dtype]  # a value near 0 may be a sum of large ones
    return all(
        torch.allclose(ours.float(), theirs, rtol=_TOLERANCE[dtype], atol=atol)
        for ours, theirs in zip(actual, expected, strict=True)
    )


def reorder_weight(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """A copy of a weight [m, n] in oneDNN's layout, which only the functions below can read.

    Args:
        weight: Dense.
        rows: About how many rows the states will have that are multiplied with it.
    """
    reordered: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return reordered


def linear(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
) -> torch.Tensor:
    """[.., m] activation(states weight^T + bias).

    Args:
        states: [.., n]
        weight: [m, n], reordered.
        bias: [m]
        activation: Name that oneDNN has for it: "none", or "swish" for SiLU.
    """
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        states, weight, bias, activation, [], ""
    )
    return result


def linear_times(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, factor: torch.Tensor
) -> torch.Tensor:
    """[.., m] (states weight^T + bias) * factor, elementwise; `factor` is [.., m]."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
        states, factor, weight, bias, "mul"
    )
    return result
