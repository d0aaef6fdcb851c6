"""What a model computes in: float32 means float32, and bfloat16 leaves the residual stream alone.

PyTorch lets cuDNN compute float32 convolutions in TF32, with 10 bits of mantissa, unless it is told
otherwise. A user, or a library, may allow it for matrix products, too, and on processors with AMX
bfloat16: `torch.set_float32_matmul_precision("medium")` moved tokens on a Xeon by 0.16 %. All of it
is settled for the forward pass alone, so that a CPU and a GPU make caches of one key.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

ComputeDtype = Literal["float32", "tf32", "bfloat16", "float16"]

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_MATMUL, _CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn
T = TypeVar("T")
_SWITCHES = RLock()
"""They belong to the process: two forward passes must not restore them under each other's feet."""


@contextmanager
def computing_in(dtype: str, device_type: str) -> Iterator[None]:
    """Compute in a `ComputeDtype` within the block: TF32 for `tf32` alone, autocast for halves."""
    half = _AUTOCAST.get(dtype)
    cast = nullcontext() if half is None else torch.autocast(device_type, half)
    with _SWITCHES, _tf32(allowed=dtype == "tf32"), cast:
        yield


@contextmanager
def _tf32(*, allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 and all else that is shorter than float32; then as it was before."""
    products, convolutions = _older(torch.get_float32_matmul_precision), _older(_cudnn_allows)
    before = [(place, place.fp32_precision) for place in _newer()]
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    _CUDNN.allow_tf32 = allowed
    for place in _newer():
        # by the older names alone, some do as `torch.backends.fp32_precision` says for all
        place.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            _CUDNN.allow_tf32 = convolutions
        for place, precision in before:
            place.fp32_precision = precision


def _newer() -> list[Any]:
    """Give what has a precision of its own, by the names that PyTorch 2.9 has brought."""
    if not hasattr(_CUDNN, "conv"):
        return []
    onednn: Any = torch.backends.mkldnn
    return [_MATMUL, _CUDNN.conv, _CUDNN.rnn, onednn.matmul, onednn.conv]


def _cudnn_allows() -> bool:
    return bool(_CUDNN.allow_tf32)


def _older(ask: Callable[[], T]) -> T | None:
    """Give how a switch of the older names stands, None where only the newer were used."""
    try:
        return ask()
    except RuntimeError:  # PyTorch's answer where the two names disagree
        return None


def keep_residual_stream(patches: nn.Module) -> None:
    """Have a model's patch embedding give float32, and with it all that is added up later.

    Under autocast a convolution gives bfloat16; open_clip casts what it adds to that, and the whole
    residual stream stays there, which moves tokens by 4.5 %, the worst by 31 %.
    """
    patches.register_forward_hook(_to_float32)


def _to_float32(_module: nn.Module, _inputs: object, output: object) -> object:
    return output.float() if isinstance(output, Tensor) else output
