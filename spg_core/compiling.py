"""Run a pure function of tensors as it is, or through torch.compile as one graph.

`auto` compiles on CUDA, where a step is many small kernels, and not on the CPU, where the hand-made
order of work (chunks that stay in the cache) is the faster one and a compiler may be absent.
"""

from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Generic, Literal, ParamSpec, TypeVar, cast
from weakref import WeakValueDictionary

import torch

from spg_core.errors import ConfigError
from spg_core.gpu_memory import lack_by_name

Compiler = Literal["auto", "none", "inductor", "aot_eager"]
Backend = Literal["inductor", "aot_eager"]

P = ParamSpec("P")
R = TypeVar("R")


def backend_for(compiler: Compiler, device: torch.device) -> Backend | None:
    """Settle `auto`: `inductor` on CUDA, None (do not compile) elsewhere. Raises: ConfigError."""
    match compiler:
        case "auto":
            return "inductor" if device.type == "cuda" else None
        case "none":
            return None
        case "inductor" | "aot_eager":
            return compiler
        case other:
            raise ConfigError(f"compiler {other!r} is not one of auto, none, inductor, aot_eager")


class Compiled(Generic[P, R]):
    """A function of tensors that torch.compile translates at its first call.

    One graph, without breaks, for each shape of batch. Numbers among the arguments would be baked
    in, so what changes from step to step must be a tensor. Where compiling fails (no C compiler,
    no Triton) the function runs as it is from then on, and `remark` says why.
    """

    def __init__(
        self,
        function: Callable[P, R],
        backend: Backend | None,
        shared: Hashable = None,
        plain: Callable[..., R] | None = None,
    ) -> None:
        """Wrap a function.

        Args:
            function: of a module.
            backend: None leaves the function as it is.
            shared: those with equal ones share their graphs, for as long as one of them lives;
                None shares with nobody. Say all that is baked in.
            plain: what is called in place of the function where it is not compiled.
        """
        self.remark: str | None = None
        self._plain: Callable[..., R] = plain or function
        self._proven = False
        self._compiled: Callable[P, R] | None = None
        if backend is not None:
            self._compiled = _compiled(function, backend, shared)

    @property
    def is_compiled(self) -> bool:
        """Whether calls go to a compiled graph."""
        return self._compiled is not None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function. Raises: what it raises."""
        if self._compiled is None:
            return self._plain(*args, **kwargs)
        if self._proven:
            return self._compiled(*args, **kwargs)
        try:
            with lack_by_name():
                result = self._compiled(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        # a missing compiler shows as any of these, in torch or when a kernel is first launched
        except (RuntimeError, OSError, ImportError) as error:
            self._compiled = None
            self.remark = f"the step runs uncompiled: torch.compile failed ({_first_line(error)})"
            return self._plain(*args, **kwargs)
        self._proven = True
        return result


_shared: WeakValueDictionary[Hashable, Callable[..., object]] = WeakValueDictionary()
"""Compiled functions that several trainers may use, as long as one of them does."""


def _compiled(function: Callable[P, R], backend: Backend, shared: Hashable) -> Callable[P, R]:
    """Give a compiled copy of a function, one that is there already if it may be shared."""
    key = (function, backend, shared)
    found = None if shared is None else _shared.get(key)
    if found is None:
        found = torch.compile(_own_copy(function), fullgraph=True, dynamic=False, backend=backend)
        if shared is not None:
            _shared[key] = found
    return cast("Callable[P, R]", found)


def _own_copy(function: Callable[P, R]) -> Callable[P, R]:
    """Copy a function, code and all: graphs belong to a code object, which may have only a few.

    Otherwise the trainers of a sweep, each of another shape, would drive each other's graphs out.
    """
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
