"""What a sweep will cost: steps, bytes and, from a few measured steps, seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from cache.reader import TokenCache
from pipeline.configs import FitSaeConfig
from pipeline.fitting.budget import sae_bytes
from pipeline.fitting.fastest import fastest_way
from pipeline.fitting.tokens import epoch_steps, tokens_a_step
from pipeline.machine.device import within_memory
from pipeline.terminal.printable import counted
from pipeline.terminal.progress import human_bytes, human_seconds
from spg_core.errors import FitError
from spg_core.sae_step import SaeTrainer

# Time is a + b * tokens: Adam costs the same whatever the batch. A GPU takes as long for a few
# tokens as for some thousand, so there a batch as it comes and a quarter of it are timed.
_TRIAL_TOKENS = (128, 640)
_TRIALS = 2


@dataclass(frozen=True)
class Estimate:
    """The cost of training some SAEs that are not there yet."""

    n_saes: int
    n_groups: int
    n_steps: int
    """Steps of all SAEs together."""
    read_bytes: int
    """Tokens read for all groups; alone, every SAE would read its own."""
    alone_bytes: int
    held_bytes: int
    """What the largest group takes."""
    seconds: float

    def text(self) -> str:
        """Say it in one line."""
        return (
            f"{counted(self.n_saes, 'SAE')} in {counted(self.n_groups, 'pass', 'passes')}: "
            f"{self.n_steps} steps, "
            f"{human_bytes(self.read_bytes)} of tokens read instead of "
            f"{human_bytes(self.alone_bytes)}, up to {human_bytes(self.held_bytes)} of memory, "
            f"about {human_seconds(self.seconds)}"
        )


def total(costs: Sequence[Estimate]) -> Estimate:
    """Add up what is done one after the other: one layer after another, say."""
    return Estimate(
        sum(one.n_saes for one in costs),
        sum(one.n_groups for one in costs),
        sum(one.n_steps for one in costs),
        sum(one.read_bytes for one in costs),
        sum(one.alone_bytes for one in costs),
        max(one.held_bytes for one in costs),
        sum(one.seconds for one in costs),
    )


def estimate(
    cache: TokenCache,
    groups: Sequence[Sequence[str]],
    configs: Mapping[str, FitSaeConfig],
    device: torch.device,
) -> Estimate:
    """Measure a few steps of every shape on random tokens, and multiply."""
    seconds, n_steps, read, alone, held = 0.0, 0, 0, 0, 0
    measured: dict[tuple[int, int, str], tuple[float, float]] = {}
    for group in groups:
        steps_here = [_n_steps(cache, configs[name]) for name in group]
        bytes_here = [cache.tokens_bytes * configs[name].epochs for name in group]
        n_steps += sum(steps_here)
        read += max(bytes_here)
        alone += sum(bytes_here)
        needs = [sae_bytes(cache, configs[name]) for name in group]
        held = max(held, sum(kept for kept, _ in needs) + max(step for _, step in needs))
        for name, steps in zip(group, steps_here, strict=True):
            config = configs[name]
            shape = (config.width, config.k, config.sparsifier)
            if shape not in measured:
                measured[shape] = _measure(config, cache, device)
            a_step, a_token = measured[shape]
            seconds += a_step * steps + a_token * cache.n_tokens * config.epochs
    return Estimate(len(configs), len(groups), n_steps, read, alone, held, seconds)


def _n_steps(cache: TokenCache, config: FitSaeConfig) -> int:
    return epoch_steps(cache, config) * config.epochs


def _measure(config: FitSaeConfig, cache: TokenCache, device: torch.device) -> tuple[float, float]:
    """Give seconds a step and seconds a token of one shape of SAE, each 0 or more.

    Uncompiled: compiling takes longer than most fits gain by it. One that does not fit the GPU
    costs nothing here, and fails by itself when its turn comes.
    """
    d_model = cache.d_model
    few_tokens, many_tokens = trial_tokens(config, cache, device)
    way = fastest_way(config, d_model, device)
    try:
        with within_memory("a trial"):
            trainer = SaeTrainer(
                config,
                d_model,
                str(device),
                way.path,
                compiler="none",
                libraries=way.libraries,
            )
            few, many = (_seconds(trainer, n, d_model) for n in (few_tokens, many_tokens))
    except FitError:
        return 0.0, 0.0
    a_token = max(0.0, (many - few) / (many_tokens - few_tokens))
    return max(0.0, few - a_token * few_tokens), a_token


def trial_tokens(config: FitSaeConfig, cache: TokenCache, device: torch.device) -> tuple[int, int]:
    """Give the sizes of batch that are timed, the smaller first."""
    if device.type == "cpu":
        return _TRIAL_TOKENS
    batch = max(2, tokens_a_step(cache, config))
    return max(1, batch // 4), batch


def _seconds(trainer: SaeTrainer, n_tokens: int, d_model: int) -> float:
    tokens = torch.randn(n_tokens, d_model, device=trainer.device)
    best = float("inf")
    for _ in range(1 + _TRIALS):  # the first warms up
        start = perf_counter()
        float(trainer.step(tokens).loss)  # waits for all that was launched before
        best = min(best, perf_counter() - start)
    return best
