"""Measure trained SAEs over a whole cache: FVU, L0, dead atoms, and which atoms ever fired."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.fitting.token_source import TokenSource
from spg_core.sae import CHUNK_TOKENS, Sae, decode, encode
from spg_core.sae_loss import squared_error

_BATCH_IMAGES = 16


@dataclass(frozen=True)
class Quality:
    """What one SAE makes of all tokens of a cache."""

    numbers: dict[str, float]
    """`fvu`, `l0` (mean non-zero latents a token) and `dead_atoms`."""
    ever_active: Tensor
    """`(n_latents,)` bool on the CPU: some token activated the atom."""


class _Sums:
    """Running sums of one SAE; tensors, so that a GPU is not waited for."""

    def __init__(self, sae: Sae, device: torch.device) -> None:
        self.sae = sae
        self.error = torch.zeros((), dtype=torch.float64, device=device)
        self.nonzero = torch.zeros((), dtype=torch.int64, device=device)
        # 0 and not AuxK's threshold: the released code masks atoms that never fired at all
        self.top = torch.zeros(sae.n_latents + 1, dtype=torch.bool, device=device)

    def add(self, tokens: Tensor) -> None:
        for chunk in torch.split(tokens, CHUNK_TOKENS):
            latents = encode(self.sae, chunk)
            self.error += squared_error(chunk - decode(self.sae, latents)).double()
            self.nonzero += latents.values.count_nonzero()
            fired = torch.where(latents.values > 0, latents.indices, self.sae.n_latents)
            self.top.index_fill_(0, fired.reshape(-1), True)


@torch.no_grad()
def measure_saes(saes: Mapping[str, Sae], source: TokenSource) -> dict[str, Quality]:
    """Measure SAEs on every token of a cache, all in one pass; results by the same names."""
    if not saes:
        return {}
    cache, device = source.cache, source.device
    sums = {name: _Sums(sae, device) for name, sae in saes.items()}
    squares = torch.zeros((), dtype=torch.float64, device=device)
    total = torch.zeros(cache.d_model, dtype=torch.float64, device=device)
    batch = _BATCH_IMAGES * cache.tokens_per_image
    for tokens in source.batches("sequential", batch, seed=0, epoch=0):
        squares += squared_error(tokens).double()
        total += tokens.sum(0, dtype=torch.float64)
        for one in sums.values():
            one.add(tokens)
    spread = float(squares - total.square().sum() / cache.n_tokens)
    return {name: _quality(one, spread, cache.n_tokens) for name, one in sums.items()}


def _quality(sums: _Sums, spread: float, n_tokens: int) -> Quality:
    ever_active = sums.top[:-1].cpu()
    numbers = {
        "fvu": float(sums.error) / spread if spread > 0 else 0.0,
        "l0": float(sums.nonzero) / n_tokens,
        "dead_atoms": int((~ever_active).sum()),
    }
    return Quality(numbers, ever_active)
