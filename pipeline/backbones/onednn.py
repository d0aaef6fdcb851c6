"""Faster linear layers of a frozen model on the CPU.

PyTorch hands a float32 `linear` on the CPU to MKL, which on AMD processors takes about twice the
time of oneDNN, also part of PyTorch. `benchmarks/extraction.py` has the difference for a whole ViT.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Absent from builds without oneDNN.
_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class OneDnnLinear(TorchFunctionMode):
    """While active, float32 `functional.linear` on the CPU is computed by oneDNN.

    Results differ from PyTorch's in rounding only. Everything else passes through unchanged. For
    models that are not trained: oneDNN's operation has no gradient.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute what is asked, a linear layer by oneDNN where that is possible."""
        if func is functional.linear and _HAS_ONEDNN and not kwargs:
            return _linear(*args)
        return func(*args, **(kwargs or {}))


def _linear(tokens: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Turn `(..., d_in)` into `(..., d_out)` with a weight of `(d_out, d_in)`."""
    is_plain = tokens.device.type == "cpu" and tokens.dtype == weight.dtype == torch.float32
    if not is_plain or tokens.numel() == 0:
        return functional.linear(tokens, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
    return product
