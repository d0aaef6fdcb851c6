"""Which of the two exact ways to compute an SAE's gradients: measured once a machine, remembered.

Near break-even two measurements may disagree, and the two ways differ in rounding. So the first
measurement of a kind of device, shape and library is kept (`pipeline.memo`) and asked again by
every later fit; `sae.json` says which one was taken.
"""

import math
from functools import cache
from time import perf_counter

import torch
from torch import Tensor

from pipeline.memo import fingerprint, recall, remember
from spg_core.sae import Sae
from spg_core.sae_config import SaeConfig
from spg_core.sae_gradients import PATHS, LossTerms, Path, gradients

_KIND = "sae-paths"
# Not fewer: what 512 tokens write stays in the cache. A trial of 512 once chose the dense path for
# d = 192, C = 768, k = 8, where a batch of 12544 took 289 ms by it and 63 by the sparse one.
_TRIAL_TOKENS = 2048
_TRIAL_ROUNDS = 4
# A path that is this much slower after two rounds needs no third.
_CLEAR = 1.5


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
            "trial": _TRIAL_TOKENS,
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
        }
    )
    known = (recall(_KIND, name) or b"").decode()
    for path in PATHS:
        if known == path:
            return path
    measured = faster_path(config.width, d_model, config.k, str(device), dtype)
    remember(_KIND, name, measured.encode())
    return measured


def device_name(device: torch.device) -> str:
    """Give the model of a GPU, or the instruction set the CPU's products use."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


@cache  # for those who have no folder to remember it in
def faster_path(width: int, d_model: int, k: int, device: str, dtype: torch.dtype) -> Path:
    """Measure both paths on one batch of random tokens, and give the faster."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn((width, d_model), generator=generator).to(device, dtype)
    tokens = torch.randn((_TRIAL_TOKENS, d_model), generator=generator).to(device)
    sae = Sae(weights, weights / d_model**0.5, k)
    seconds = dict.fromkeys(PATHS, math.inf)
    for trial in range(_TRIAL_ROUNDS):
        # in turns, so that a busy moment of the machine hits both
        for path in PATHS:
            seconds[path] = min(seconds[path], _seconds(path, sae, tokens))
        if trial > 0 and max(seconds.values()) > _CLEAR * min(seconds.values()):
            break
    return min(PATHS, key=seconds.__getitem__)


def _seconds(path: Path, sae: Sae, tokens: Tensor) -> float:
    terms = LossTerms(scale=1.0, l1=0.0, threshold=0.0)
    start = perf_counter()
    gradients(path, sae, tokens, terms).dictionary.sum().item()
    return perf_counter() - start
