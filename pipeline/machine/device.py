"""Which device the maths runs on, and how much of its memory is there to be taken."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from traceback import clear_frames

import torch
from torch import Tensor

from pipeline.terminal.progress import say
from spg_core.errors import ConfigError, FitError, MetricError
from spg_core.gpu_memory import lack_by_name, lack_of


@dataclass(frozen=True)
class Place:
    """Where a worker stands among those of its machine."""

    number: int
    """From 0."""
    n_workers: int
    """How many they are."""


place: Place | None = None
"""This process's; None where it is no worker."""


def resolve_device(name: str) -> torch.device:
    """Give the device a user named; `auto` is `cuda` where there is a GPU, else the CPU.

    `cuda` is the first GPU, in a worker one of its own.

    Raises: ConfigError for a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device is auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name} is not here, torch sees {torch.cuda.device_count()} GPUs; "
            "use --device cpu"
        )
    return _own_gpu() if device == torch.device("cuda") else device


def _own_gpu() -> torch.device:
    """Share the GPUs that all workers of a machine see out among them."""
    n_gpus = torch.cuda.device_count()
    if place is None or n_gpus < 2 or _has_own_gpu():
        return torch.device("cuda")
    return torch.device("cuda", place.number % n_gpus)


def _has_own_gpu() -> bool:
    """Tell whether dask-cuda has this worker see a GPU of its own first."""
    return "dask_cuda" in sys.modules


def free_bytes(device: torch.device) -> int:
    """Give this process's share of the memory that is to be had on a GPU.

    What the allocator holds and nobody uses is free too: an earlier stage left it. Workers that
    share a GPU share it evenly.
    """
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + unused) // _n_sharing(device)


def _n_sharing(device: torch.device) -> int:
    if place is None or _has_own_gpu():
        return 1
    n_gpus = torch.cuda.device_count()
    index = device.index or 0
    if index == place.number % n_gpus:
        return len(range(index, place.n_workers, n_gpus))
    return place.n_workers  # named by number, it was named to all of them


def host_bytes() -> int:
    """Give the share of this machine's memory that one thing may take: a quarter, it is shared."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def sent(array: Tensor, device: torch.device) -> Tensor:
    """Copy what lies on the CPU to a device; on a GPU from pinned memory, and nobody waits for it.

    The copy then runs beside the kernels. For a CPU nothing is pinned: it would wake CUDA.
    """
    if device.type != "cuda":
        return array.to(device)
    return array.pin_memory().to(device, non_blocking=True)


def device_name(device: torch.device) -> str:
    """Give the model of a GPU, or that of the CPU and the instructions PyTorch uses of it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"


@cache
def processor_name() -> str:
    """Give the model of this machine's processor, as Linux knows it, else its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine() or "cpu"


_most: dict[tuple[str, torch.device], int] = {}
"""Images at once that fitted a GPU, since more did not."""


def by_halves(
    what: str, n: int, most: int, device: torch.device, run: Callable[[slice], None]
) -> None:
    """Run something for n images, `most` at a time, fewer from the first time they do not fit.

    Images must not touch each other in it. Fewer are taken in all later calls for `what`, too.

    Raises: MetricError for a GPU on which one image does not fit.
    """
    at = 0
    while at < n:
        here = slice(at, min(n, at + min(most, _most.get((what, device), most))))
        lack = _lack(run, here)
        if lack is None:
            at = here.stop
            continue
        torch.cuda.empty_cache()
        count = here.stop - here.start
        if count == 1:
            raise MetricError(
                f"{what}: one image does not fit {device} ({lack}); free its memory, or use "
                "--device cpu"
            )
        _most[what, device] = count // 2
        say(f"remark: {what}: {count} images do not fit {device}; now {count // 2} at a time")


def _lack(run: Callable[[slice], None], here: slice) -> str | None:
    """Run it; say what the GPU said, None if all is well."""
    try:
        with lack_by_name():
            run(here)
    except torch.OutOfMemoryError as error:
        return lack_of(error)  # not the error, which holds frames and their tensors
    return None


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Make running out of a GPU's memory within the block an error of `what` alone.

    Raises: FitError that says what to lower.
    """
    try:
        with lack_by_name():
            yield
    except torch.OutOfMemoryError as error:
        clear_frames(error.__traceback__)  # they hold tensors, and the error is kept
        torch.cuda.empty_cache()
        raise FitError(
            f"{what} does not fit the GPU ({lack_of(error)}); lower --width or --images-per-step, "
            "or let fewer runs share the GPU"
        ) from None
