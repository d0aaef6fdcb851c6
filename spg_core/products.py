"""Matrix products by the fastest library that this build of PyTorch has."""

import torch
from torch import Tensor
from torch.nn import functional


def _multiplies() -> bool:
    """Tell whether oneDNN's operation is in this build and does what we ask of it.

    It is private to PyTorch, so a release may take it away or give it other arguments.
    """
    rows = torch.eye(2)
    try:
        product = torch.ops.mkldnn._linear_pointwise(rows, rows, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(product, rows)


HAS_ONEDNN = _multiplies()


def inner_products(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply every row of `(..., width)` with every row of `(m, width)`: `(..., m)`.

    On the CPU in float32 this asks oneDNN, which PyTorch uses for convolutions but not for plain
    products: on an AMD EPYC with AVX-512 it took half the time of MKL in all three orientations
    a training step needs (`benchmarks/sae_step.py`). The two differ in rounding only, and the
    choice depends on the build of PyTorch alone, so a machine repeats its results. A compiler
    gets the plain product: it knows this operation for constant weights only. So does autograd:
    oneDNN's operation has no gradient.

    Args:
        left: `(..., width)`.
        right: `(m, width)`, of the same dtype.
        bias: `(m,)`, added to each row of the result.
    """
    if HAS_ONEDNN and _is_for_onednn(left, right, bias):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
        return product
    return functional.linear(left, right, bias)


def _is_for_onednn(left: Tensor, right: Tensor, bias: Tensor | None) -> bool:
    if torch.compiler.is_compiling() or not left.numel():
        return False
    given = [one for one in (left, right, bias) if one is not None]
    if torch.is_grad_enabled() and any(one.requires_grad for one in given):
        return False
    return all(one.device.type == "cpu" and one.dtype == torch.float32 for one in given)
