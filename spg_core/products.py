"""Matrix products in float32 on the CPU, by whichever library is asked.

PyTorch brings two: the one that it gives who asks for a product (MKL on x86), and oneDNN, which it
keeps for convolutions. Which is the faster depends on the processor, the shape and how the operands
lie in memory: on an AMD EPYC oneDNN takes half of MKL's time, on an Intel Xeon up to 1.4 times as
much (`benchmarks/README.md`). The two differ in rounding, so who wants the same bits again keeps to
one choice; `pipeline.fitting.fastest` measures and remembers it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Library = Literal["onednn", "torch"]
LIBRARIES: tuple[Library, ...] = ("onednn", "torch")


@dataclass(frozen=True)
class Libraries:
    """Who multiplies, by how the operands of `inner_products` lie in memory.

    oneDNN where this build of PyTorch lacks it, and where it does not do what is asked, is PyTorch.
    """

    rows: Library = "onednn"
    """Both row by row, as tokens and an encoder."""
    right_columns: Library = "onednn"
    """The right one column by column, as latents and a dictionary transposed."""
    columns: Library = "onednn"
    """The left one column by column, as in a gradient by weights."""

    def __str__(self) -> str:
        return f"{self.rows}/{self.right_columns}/{self.columns}"


DEFAULT = Libraries()


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


def inner_products(
    left: Tensor, right: Tensor, bias: Tensor | None = None, by: Libraries = DEFAULT
) -> Tensor:
    """Multiply every row of `(..., width)` with every row of `(m, width)`: `(..., m)`.

    A compiler gets PyTorch's product: it knows oneDNN's operation for constant weights only. So
    does autograd: that operation has no gradient.

    Args:
        left: `(..., width)`.
        right: `(m, width)`, of the same dtype.
        bias: `(m,)`, added to each row of the result.
        by: who multiplies.
    """
    if HAS_ONEDNN and _is_for_onednn(left, right, bias) and _library(left, right, by) == "onednn":
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
        return product
    return functional.linear(left, right, bias)


def _library(left: Tensor, right: Tensor, by: Libraries) -> Library:
    if left.stride(-1) != 1:
        return by.columns
    return by.rows if right.stride(-1) == 1 else by.right_columns


def _is_for_onednn(left: Tensor, right: Tensor, bias: Tensor | None) -> bool:
    if torch.compiler.is_compiling() or not left.numel():
        return False
    given = [one for one in (left, right, bias) if one is not None]
    if torch.is_grad_enabled() and any(one.requires_grad for one in given):
        return False
    return all(one.device.type == "cpu" and one.dtype == torch.float32 for one in given)
