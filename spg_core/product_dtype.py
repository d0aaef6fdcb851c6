"""What the products of a training step are computed in."""

from typing import Literal

import torch

from spg_core.errors import ConfigError

Precision = Literal["auto", "float32", "float64", "bfloat16"]


def product_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Settle `auto`: bfloat16 on GPUs that multiply it, float32 elsewhere. Raises: ConfigError."""
    match precision:
        case "auto":
            return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
        case "float32":
            return torch.float32
        case "float64":
            return torch.float64
        case "bfloat16":
            return torch.bfloat16
        case other:
            raise ConfigError(f"precision {other!r} is not one of auto, float32, float64, bfloat16")


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has the arithmetic; older GPUs imitate it, slower than float32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
