"""What SAEs in training cost on this machine: memory, and which of two exact ways takes less time.

Near break-even two measurements of the two ways may disagree, and the two differ in rounding. So
the first measurement of a kind of device, shape and library is kept (`pipeline.memo`) and asked
again by every later fit; `sae.json` says which one was taken.
"""

import math
import os
from collections.abc import Mapping
from functools import cache as remembered
from time import perf_counter

import torch
from torch import Tensor

from cache.reader import TokenCache
from pipeline.configs import FitSaeConfig
from pipeline.device import free_bytes
from pipeline.fitting.tokens import tokens_a_step
from pipeline.memo import fingerprint, recall, remember
from spg_core.errors import ConfigError
from spg_core.sae import Sae
from spg_core.sae_config import SaeConfig
from spg_core.sae_gradients import PATHS, LossTerms, Path, gradients

_FLOAT = 4
# Weights, Adam's two moments: of encoder and of dictionary each.
_KEPT_MATRICES = 6
# Gradients and AuxK's copies live during one member's step only.
_STEP_MATRICES = 4
# Of a GPU's free memory: tokens take the other half. Of a machine's memory: it is shared.
_GPU_SHARE, _HOST_SHARE = 0.5, 0.25

_KIND = "sae-paths"
# Not fewer: what 512 tokens write stays in the cache. A trial of 512 once chose the dense path for
# d = 192, C = 768, k = 8, where a batch of 12544 took 289 ms by it and 63 by the sparse one.
_TRIAL_TOKENS = 2048
_TRIAL_ROUNDS = 4
# A path that is this much slower after two rounds needs no third.
_CLEAR = 1.5


def memory_budget(device: torch.device) -> int:
    """Give half of what is to be had of a GPU's memory, or a quarter of the machine's, in bytes."""
    if device.type == "cuda":
        return int(_GPU_SHARE * free_bytes(device))
    return int(_HOST_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def sae_bytes(cache: TokenCache, config: FitSaeConfig) -> tuple[int, int]:
    """Give the bytes an SAE holds between steps, and what its step takes besides.

    A step holds the encoder's products of a whole batch twice on the dense path (latents and
    mask), the tokens and their residual; the sparse path takes less and is not told apart.
    """
    matrix = config.width * cache.d_model * _FLOAT
    activations = tokens_a_step(cache, config) * 3 * (config.width + cache.d_model) * _FLOAT
    return _KEPT_MATRICES * matrix, _STEP_MATRICES * matrix + activations


def plan_groups(
    cache: TokenCache, configs: dict[str, FitSaeConfig], memory_bytes: int
) -> list[list[str]]:
    """Split SAEs into groups that see the same batches and fit the memory; keeps their order."""
    together: dict[tuple[str, int, int, int], list[str]] = {}
    for identifier, config in configs.items():
        reads = (config.order, config.images_per_step, config.seed, config.epochs)
        together.setdefault(reads, []).append(identifier)
    return [
        part
        for group in together.values()
        for part in split_by_memory(
            {identifier: sae_bytes(cache, configs[identifier]) for identifier in group},
            memory_bytes,
        )
    ]


def split_by_memory(needs: Mapping[str, tuple[int, int]], memory_bytes: int) -> list[list[str]]:
    """Cut a list into parts that fit: what all hold, and the step of the largest.

    One that does not fit alone is a part of its own. See `require_fit`.

    Args:
        needs: (bytes held, bytes of a step) by name, in order.
        memory_bytes: the budget.
    """
    parts: list[list[str]] = []
    held = step = 0
    for name, (own_held, own_step) in needs.items():
        if not parts or held + own_held + max(step, own_step) > memory_bytes:
            parts.append([])
            held = step = 0
        parts[-1].append(name)
        held += own_held
        step = max(step, own_step)
    return parts


def require_fit(needs: Mapping[str, tuple[int, int]], memory_bytes: int) -> None:
    """Refuse a budget that someone stated and that does not hold each fit by itself.

    Raises: ConfigError with both numbers.
    """
    for name, (held, step) in needs.items():
        if held + step > memory_bytes:
            raise ConfigError(
                f"{name} needs {(held + step) / 1e9:.2f} GB to train, allowed are "
                f"{memory_bytes / 1e9:.2f} GB; allow more, or take a smaller width or batch"
            )


def remembered_path(config: SaeConfig, d_model: int, device: torch.device) -> Path:
    """Give `dense` or `sparse`, from the memo or from a measurement that is then remembered.

    On a GPU always `dense`: its five products at the default size are 0.8 ms of an H100's
    arithmetic, and gathering rows takes longer. Nothing of this was measured.
    """
    if config.sparsifier == "relu" or device.type == "cuda":
        return "dense"
    name = fingerprint(
        {
            "device": device_name(device),
            "shape": [config.width, d_model, config.k],
            "trial": _TRIAL_TOKENS,
            "threads": torch.get_num_threads(),
        }
    )
    known = (recall(_KIND, name) or b"").decode()
    for path in PATHS:
        if known == path:
            return path
    measured = faster_path(config.width, d_model, config.k)
    remember(_KIND, name, measured.encode())
    return measured


def device_name(device: torch.device) -> str:
    """Give the model of a GPU, or the instruction set the CPU's products use."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


@remembered  # for those who have no folder to remember it in
def faster_path(width: int, d_model: int, k: int) -> Path:
    """Measure both paths on one batch of random tokens on the CPU, and give the faster."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn((width, d_model), generator=generator)
    tokens = torch.randn((_TRIAL_TOKENS, d_model), generator=generator)
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
