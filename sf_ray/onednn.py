"""Products on CPU by oneDNN, with weights laid out once as it multiplies fastest.

Knows torch alone; the operators are those that its own compiler calls.
"""

import platform

import torch

_DTYPES = (torch.float32, torch.bfloat16)


def supports(dtype: torch.dtype) -> bool:
    """Whether this machine and this torch have such products of a type."""
    return (
        dtype in _DTYPES
        and platform.machine() in ("x86_64", "AMD64")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
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
