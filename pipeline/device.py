"""Which device the maths runs on."""

import torch

from spg_core.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """Give the device a user named; `auto` is the first GPU, else the CPU.

    Raises: ConfigError for a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    return device
