"""What SAEs in training take of a machine's memory, and how many go together."""

from collections.abc import Mapping

import torch

from cache.reader import TokenCache
from pipeline.configs import FitSaeConfig
from pipeline.fitting.tokens import tokens_a_step
from pipeline.machine.device import free_bytes, host_bytes
from spg_core.errors import ConfigError

_FLOAT = 4
# Weights, Adam's two moments: of encoder and of dictionary each.
_KEPT_MATRICES = 6
# Gradients and AuxK's copies live during one member's step only.
_STEP_MATRICES = 4
# Of a GPU's free memory: tokens take the other half.
_GPU_SHARE = 0.5


def memory_budget(device: torch.device) -> int:
    """Give half of what is to be had of a GPU's memory, or a quarter of the machine's, in bytes."""
    if device.type == "cuda":
        return int(_GPU_SHARE * free_bytes(device))
    return host_bytes()


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
