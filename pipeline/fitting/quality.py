"""Measure trained SAEs over a whole cache: FVU, L0, dead atoms, and which atoms ever fired."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.artifacts.documents import SaeQuality
from pipeline.fitting.tokens import TokenSource
from spg_core.sae import Sae
from spg_core.sae_loss import fvu
from spg_core.sae_quality import SaeSums, TokenSums

_BATCH_IMAGES = 16


@dataclass(frozen=True)
class Quality:
    """What one SAE makes of all tokens of a cache."""

    numbers: SaeQuality
    ever_active: Tensor
    """`(n_latents,)` bool on the CPU: some token activated the atom."""


@torch.no_grad()
def measure_saes(saes: Mapping[str, Sae], source: TokenSource) -> dict[str, Quality]:
    """Measure SAEs on every token of a cache, all in one pass; results by the same names."""
    if not saes:
        return {}
    cache, device = source.cache, source.device
    sums = {name: SaeSums(sae) for name, sae in saes.items()}
    all_tokens = TokenSums(cache.d_model, device)
    batch = _BATCH_IMAGES * cache.tokens_per_image
    for tokens in source.batches("sequential", batch, seed=0, epoch=0):
        all_tokens.add(tokens)
        for one in sums.values():
            one.add(tokens)
    spread = all_tokens.variation
    return {name: _quality(one, spread, cache.n_tokens) for name, one in sums.items()}


def _quality(sums: SaeSums, spread: Tensor, n_tokens: int) -> Quality:
    ever_active = sums.ever_active.cpu()
    numbers = SaeQuality(
        fvu=float(fvu(sums.error, spread)),
        l0=float(sums.n_nonzero) / n_tokens,
        dead_atoms=int((~ever_active).sum()),
    )
    return Quality(numbers, ever_active)
