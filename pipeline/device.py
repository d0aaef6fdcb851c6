"""Which device the maths runs on."""

import sys

import torch

from spg_core.errors import ConfigError

place: int | None = None
"""Number of this process among the workers of its machine; None where it is no worker."""


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
    """Share the GPUs that all workers of a machine see out among them.

    dask-cuda has each of its workers see its own GPU first; there nothing is left to share out.
    """
    n_gpus = torch.cuda.device_count()
    if place is None or n_gpus < 2 or "dask_cuda" in sys.modules:
        return torch.device("cuda")
    return torch.device("cuda", place % n_gpus)
