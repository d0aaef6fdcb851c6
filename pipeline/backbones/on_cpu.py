"""A frozen model's forward pass on the CPU: images shared out over the cores, each by itself.

PyTorch splits every operation of a batch over its threads, which then wait for each other hundreds
of times a batch, also for one that a decoder has pushed off its core. A core that has its own
images waits once. And PyTorch hands a float32 `linear` to MKL, which on AMD processors takes about
twice the time of oneDNN, also part of PyTorch. `benchmarks/extraction.py` measures both together.
On Intel's, MKL is the faster: a ViT-L's linear layers took oneDNN 1.19 of its time, a ViT-Tiny's
0.94 (8 images of 785 tokens, one core of a Xeon). Here the processor's maker decides, not a clock:
tokens that several processes write to one cache are to have the same bits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pipeline.machine.device import processor_name
from spg_core.products import inner_products

Taken = tuple[Tensor, Tensor | None]
"""What a model gives of a layer: tokens `(B, n, d)`; class tokens `(B, d)`, if it has them."""


def forward_on_cpu(model: nn.Module, pixels: Tensor) -> list[Taken]:
    """Run a frozen model on `(B, 3, H, W)` float32, with as many cores as PyTorch has threads.

    Returns: what the model gives for all B images, a pair a layer: tokens `(B, n, d)`, class
        tokens `(B, d)`.
    """
    n_parts = min(torch.get_num_threads(), len(pixels))
    if n_parts == 1:
        return _forward(model, pixels)
    with _one_thread_an_operation(), ThreadPoolExecutor(n_parts) as pool:
        parts = pixels.tensor_split(n_parts)
        found = list(pool.map(lambda part: _forward(model, part), parts))
    return [_joined(layer) for layer in zip(*found, strict=True)]


def _joined(parts: Sequence[Taken]) -> Taken:
    classes = [cls for _, cls in parts if cls is not None]
    return torch.cat([tokens for tokens, _ in parts]), torch.cat(classes) if classes else None


@torch.inference_mode()
def _forward(model: nn.Module, pixels: Tensor) -> list[Taken]:
    with linear_layers_by(processor_name()):
        return list(model(pixels))


def linear_layers_by(processor: str) -> AbstractContextManager[object]:
    """Have linear layers computed by the library that suits a processor, by its name."""
    return nullcontext() if "intel" in processor.lower() else OneDnnLinear()


@contextmanager
def _one_thread_an_operation() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class OneDnnLinear(TorchFunctionMode):
    """While active, float32 `functional.linear` on the CPU is computed by oneDNN.

    Results differ from PyTorch's in rounding only. Everything else passes through unchanged. For
    models that are not trained: oneDNN's operation has no gradient.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Compute what is asked, a linear layer by oneDNN where that is possible."""
        if func is functional.linear and not kwargs:
            return inner_products(*cast("tuple[Tensor, Tensor, Tensor | None]", args))
        return func(*args, **(kwargs or {}))
