"""Products on CPU by oneDNN, with weights laid out once as it multiplies fastest.

Knows torch alone; the operators are those that its own compiler calls.
"""

import functools

import torch

# In float16 no CPU was faster this way.
_DTYPES = (torch.float32, torch.bfloat16)
# How far products may lie from PyTorch's own: sums of 64 numbers in another order, then rounded.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@functools.cache
def supports(dtype: torch.dtype) -> bool:
    """Whether this machine and this torch multiply a type with weights that are laid out.

    Found by trying it, once in a process: a CPU may lack the instructions for a type, a build of
    torch the operator, and neither a platform's name nor a version says so.
    """
    if dtype not in _DTYPES:
        return False
    always = torch.Generator().manual_seed(0)
    states, weight, factor = (torch.randn(32, n, generator=always).to(dtype) for n in (64, 64, 32))
    bias = torch.randn(32, generator=always).to(dtype)
    plain = torch.nn.functional.linear(states.float(), weight.float(), bias.float())
    expected = (plain, torch.nn.functional.silu(plain), plain * factor.float())
    try:
        packed = laid_out(weight, len(states))
        made = (
            product(states, packed, bias),
            product(states, packed, bias, "swish"),
            product_times(states, packed, bias, factor),
        )
    except (RuntimeError, AttributeError):  # the operator fails here, or is not there at all
        return False
    atol = 10 * _TOLERANCE[dtype]  # a value near 0 may be a sum of large ones
    return all(
        torch.allclose(one.float(), other, rtol=_TOLERANCE[dtype], atol=atol)
        for one, other in zip(made, expected, strict=True)
    )


def laid_out(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """A copy of a weight [m, n] for `product` with about so many rows; dense no more."""
    made: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return made


def product(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    then: str = "none",
) -> torch.Tensor:
    """[.., n] by a weight that is laid out -> [.., m], `then` an activation of it ("swish")."""
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, then, [], "")
    return made


def product_times(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, factor: torch.Tensor
) -> torch.Tensor:
    """The same, times a factor [.., m]."""
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
        states, factor, weight, bias, "mul"
    )
    return made
