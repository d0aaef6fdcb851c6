"""Which of the two exact ways to compute an SAE's gradients: measured once a machine, remembered.

Near break-even two measurements may disagree, and the two ways differ in rounding. So the first
measurement of a kind of device, shape and library is kept (`pipeline.memo`) and asked again by
every later fit; `sae.json` says which one was taken.
"""

import torch

from pipeline.memo import fingerprint, recall, remember
from spg_core.sae import Sae
from spg_core.sae_config import SaeConfig
from spg_core.sae_gradients import PATHS, TRIAL_TOKENS, Path, resolve_path

_KIND = "sae-paths"


def remembered_path(config: SaeConfig, d_model: int, device: torch.device) -> Path:
    """Give `dense` or `sparse`, from the memo or from a measurement that is then remembered."""
    if config.sparsifier == "relu":
        return "dense"
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    name = fingerprint(
        {
            "device": device_name(device),
            "shape": [config.width, d_model, config.k],
            "dtype": str(dtype),
            "trial": TRIAL_TOKENS,
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
        }
    )
    known = (recall(_KIND, name) or b"").decode()
    for path in PATHS:
        if known == path:
            return path
    measured = resolve_path("auto", _weights(config, d_model, device, dtype))
    remember(_KIND, name, measured.encode())
    return measured


def device_name(device: torch.device) -> str:
    """Give the model of a GPU, or the instruction set the CPU's products use."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


def _weights(config: SaeConfig, d_model: int, device: torch.device, dtype: torch.dtype) -> Sae:
    """Give an SAE of the shape asked for; only its shape, dtype and device are looked at."""
    weights = torch.empty((config.width, d_model), dtype=dtype, device=device)
    return Sae(weights, weights, k=config.k, sparsifier=config.sparsifier, clamp=config.clamp)
