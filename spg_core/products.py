"""Matrix products by the fastest library that this build of PyTorch has."""

import torch
from torch import Tensor
from torch.nn import functional

# Absent from builds without oneDNN.
HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def inner_products(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply every row of `(..., width)` with every row of `(m, width)`: `(..., m)`.

    On the CPU in float32 this asks oneDNN, which PyTorch uses for convolutions but not for plain
    products: on an AMD EPYC with AVX-512 it took half the time of MKL in all three orientations
    a training step needs (`benchmarks/sae_step.py`). The two differ in rounding only, and the
    choice depends on the build of PyTorch alone, so a machine repeats its results. A compiler
    gets the plain product: it knows this operation for constant weights only. oneDNN's operation
    has no gradient.

    Args:
        left: `(..., width)`.
        right: `(m, width)`, of the same dtype.
        bias: `(m,)`, added to each row of the result.
    """
    on_cpu = left.device.type == "cpu" and left.dtype == right.dtype == torch.float32
    if HAS_ONEDNN and on_cpu and left.numel() and not torch.compiler.is_compiling():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
        return product
    return functional.linear(left, right, bias)
