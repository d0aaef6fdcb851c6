"""A GPU that is not there: tensors of the right device, type and shape, without numbers.

    with pretended_gpu() as gpu:
        trainer.step(tokens)
    assert gpu.waits == []

What lies on the CPU is computed; what lies on `cuda` only has its device, dtype and shape worked
out, so operands on two devices and dtypes that do not fit fail as they would on a GPU. A copy back
to the CPU gives ones. Speed, rounding and CUDA's own errors are not to be seen this way.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

needs_cuda_build = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this PyTorch knows no CUDA"
)

_ATEN = torch.ops.aten
_PRODUCTS = {
    *(_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.mv.default),
    *(_ATEN.baddbmm.default, _ATEN.dot.default, _ATEN.convolution.default),
}
_COPIES = {_ATEN._to_copy.default, _ATEN.copy_.default}
_OURS = ("/spg_core/", "/pipeline/")


class PretendedGpu(TorchDispatchMode):
    """Watches what is asked of the GPU."""

    def __init__(self, n_found: int) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        """What ran on the GPU, by name."""
        self.waits: list[str] = []
        """Where the host waited for the device: operation and place in our code."""
        self.products: set[torch.dtype] = set()
        """The types that matrix products and convolutions read."""
        self.sent: Counter[torch.dtype] = Counter()
        """How many numbers came to it from the host, by their type there."""
        self.wide: list[str] = []
        """Where float64 was computed in more than single numbers."""
        self._n_found = n_found
        self._pinned: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute on the CPU, or look at what is done on the GPU."""
        kwargs = kwargs or {}
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        here = [one for one in tensors if not isinstance(one, FakeTensor)]
        if func is _ATEN._pin_memory.default:
            return self._pin(args[0])
        if func is _ATEN.is_pinned.default:
            return self._is_pinned(args[0])
        if len(here) == len(tensors) and _named_device(args, kwargs).type == "cpu":
            with unset_fake_temporarily():
                return self._on_cpu(func, args, kwargs)
        if (
            func.namespace == "aten" and func._can_decompose()
        ):  # in inference mode, operations come as they were called
            with self:
                return func.decompose(*args, **kwargs)
        if func in _COPIES and (goes_to := self._crosses(func, args, kwargs)) is not None:
            self._note_copy(func, args, kwargs)
            if goes_to == "cpu":
                return self._landed(func, args, kwargs)
            [source] = here
            self.sent[source.dtype] += source.numel()
        if func is _ATEN._local_scalar_dense.default:
            self._wait(func)
            return True if args[0].dtype == torch.bool else 1
        if func is _ATEN.nonzero.default:
            self._wait(func)
            shape = (self._n_found, args[0].ndim)
            return torch.empty(shape, dtype=torch.int64, device=args[0].device)
        self._look(func, tensors)
        return func(*args, **kwargs)

    def _on_cpu(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Compute; memory that is to be pinned is only noted as such."""
        is_pinned = kwargs.get("pin_memory", False)
        made = func(*args, **({**kwargs, "pin_memory": False} if is_pinned else kwargs))
        if is_pinned:
            self._pinned.append(made)
        return made

    def _pin(self, tensor: Tensor) -> Tensor:
        with unset_fake_temporarily():
            pinned = tensor.clone()
        self._pinned.append(pinned)
        return pinned

    def _is_pinned(self, tensor: Tensor) -> bool:
        """Tell whether a tensor, or what it is a view of, is pinned."""
        with unset_fake_temporarily():
            memory = tensor.untyped_storage().data_ptr()
            return any(one.untyped_storage().data_ptr() == memory for one in self._pinned)

    @staticmethod
    def _crosses(func: Any, args: Any, kwargs: Any) -> str | None:
        """Give the type of the device that a copy goes to from another, None if it stays."""
        if func is _ATEN.copy_.default:
            target, source = args[0].device, args[1].device
        else:
            source = args[0].device
            target = torch.device(kwargs.get("device") or source)
        return None if target.type == source.type else str(target.type)

    def _note_copy(self, func: Any, args: Any, kwargs: Any) -> None:
        into = args[0] if func is _ATEN.copy_.default else None
        source = args[0] if into is None else args[1]
        asynchronous = kwargs.get("non_blocking", False) or (
            into is not None and args[2:] == (True,)
        )
        # of the two, the one on the host; what `to` makes there without waiting is pinned
        on_host = into if isinstance(source, FakeTensor) else source
        if not (asynchronous and (on_host is None or self._is_pinned(on_host))):
            self._wait(func)

    @staticmethod
    def _landed(func: Any, args: Any, kwargs: Any) -> Tensor:
        with unset_fake_temporarily():
            if func is _ATEN.copy_.default:
                landed: Tensor = args[0].fill_(1)
                return landed
            dtype = kwargs.get("dtype") or args[0].dtype
            return torch.ones(args[0].shape, dtype=dtype)

    def _look(self, func: Any, tensors: list[Tensor]) -> None:
        self.operations[str(func)] += 1
        if func in _PRODUCTS:
            self.products |= {one.dtype for one in tensors}
        if any(one.dtype == torch.float64 and one.numel() > 1 for one in tensors):
            self.wide.append(f"{func} at {_place()}")

    def _wait(self, func: Any) -> None:
        self.waits.append(f"{func} at {_place()}")


class _Asleep(FakeTensorMode):
    """Leaves CUDA alone even where `pretend_card` says that there is a GPU."""

    @property
    def avoid_device_init(self) -> bool:
        """Never wake a GPU."""
        return True


def _named_device(args: Any, kwargs: Any) -> torch.device:
    """Give the device that an operation names, the CPU where it names none."""
    named = next((one for one in args if isinstance(one, torch.device)), None)
    return torch.device(kwargs.get("device") or named or "cpu")


def _place() -> str:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if any(part in frame.f_code.co_filename for part in _OURS):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    return "the test"


@contextmanager
def pretended_gpu(n_found: int = 1) -> Iterator[PretendedGpu]:
    """Have tensors on `cuda` within the block; `nonzero` finds `n_found` places there."""
    with _Asleep(allow_non_fake_inputs=True), PretendedGpu(n_found) as gpu:
        yield gpu


def pretend_card(
    monkeypatch: pytest.MonkeyPatch,
    *,
    free_gb: float = 80.0,
    held_gb: float = 0.0,
    capability: tuple[int, int] = (9, 0),
    n_gpus: int = 1,
) -> None:
    """Have torch speak of a card: memory free on it, memory the allocator holds unused, kind."""
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: n_gpus,
        "mem_get_info": lambda *_: (int(free_gb * 1e9), 80 * 10**9),
        "memory_reserved": lambda *_: int(held_gb * 1e9),
        "memory_allocated": lambda *_: 0,
        "current_stream": lambda *_: SimpleNamespace(synchronize=lambda: None),
        "get_device_name": lambda *_: "a pretended GPU",
        "get_device_capability": lambda *_: capability,
        "is_bf16_supported": lambda including_emulation=True: (
            including_emulation or capability >= (8, 0)
        ),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    # told that there is a GPU, the mode would wake it
    monkeypatch.setattr("torch._subclasses.fake_tensor.init_gpu_context", lambda _: None)
