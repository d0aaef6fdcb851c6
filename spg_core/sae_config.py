"""What an SAE's training depends on, and the weights it starts from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spg_core.errors import ConfigError
from spg_core.sae import Sparsifier
from spg_core.sae_loss import Reduction, error_scale

# Atoms shorter than this are not stretched to length 1.
SMALLEST_NORM = 1e-8


@dataclass(frozen=True, kw_only=True)
class SaeStepConfig:
    """Everything a training step depends on. Defaults are the `released` recipe's."""

    n_latents: int = 4096
    """Atoms in the dictionary, C."""
    d_model: int
    """Width of a token."""
    k: int = 32
    """Latents kept a token under `topk`; ignored under `relu`."""
    sparsifier: Sparsifier = "topk"
    """`topk`, or `relu` with an l1 penalty."""
    l1_coefficient: float = 0.0
    """Under `relu`: weight of a token's summed latents, mean over tokens. 0 under `topk`."""
    reduction: Reduction = "mean"
    """Squared error over d_model: `mean` (released) or `sum` (paper); always mean over tokens."""
    auxk: int = 512
    """Dead atoms that reconstruct the residual, at most; 0 turns AuxK off."""
    auxk_coefficient: float = 1 / 32
    """Weight of AuxK's loss, which is reduced as the main loss is.

    Gao et al. divide it by the residual's own size; the released code does not, nor do we."""
    dead_after_tokens: int = 10_000_000
    """An atom is dead once it was not active for this many tokens."""
    dead_threshold: float = 1e-3
    """Above this activation an atom counts as active."""
    unit_norm: bool = True
    """Keep every atom at length 1: gradients tangential, atoms re-projected after each step."""
    tied_init: bool = True
    """Start the encoder as a copy of the dictionary; otherwise uniform in +-1/sqrt(d_model)."""
    clamp: bool = True
    """Under `topk`: set negative latents to 0."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    beta1: float = 0.5
    """Adam's decay of the mean gradient (0.9 in the paper's recipe)."""
    beta2: float = 0.999
    """Adam's decay of the mean squared gradient."""
    eps: float = 1e-8
    """Adam's guard against division by zero."""
    seed: int = 111
    """Seed of the initial weights."""

    def __post_init__(self) -> None:
        if self.sparsifier not in ("topk", "relu"):
            raise ConfigError(f"sparsifier {self.sparsifier!r} is not one of topk, relu")
        error_scale(self.reduction, 1, 1)
        if min(self.n_latents, self.d_model) < 1:
            raise ConfigError(
                f"n_latents = {self.n_latents} and d_model = {self.d_model} must be 1 or more"
            )
        if self.sparsifier == "topk" and not 1 <= self.k <= self.n_latents:
            raise ConfigError(
                f"k = {self.k} latents a token of {self.n_latents} atoms; "
                f"choose k from 1 to {self.n_latents}"
            )
        if self.sparsifier == "topk" and self.l1_coefficient != 0:
            raise ConfigError(
                f"l1_coefficient = {self.l1_coefficient} with topk, which has no l1 term; "
                "set it to 0 or choose relu"
            )
        if min(self.l1_coefficient, self.auxk, self.auxk_coefficient, self.dead_threshold) < 0:
            raise ConfigError(
                "l1_coefficient, auxk, auxk_coefficient and dead_threshold must be 0 or more"
            )
        if self.dead_after_tokens < 1:
            raise ConfigError(f"dead_after_tokens = {self.dead_after_tokens} must be 1 or more")


def initial_weights(
    config: SaeStepConfig, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Draw encoder and dictionary, each `(n_latents, d_model)`, on the CPU.

    The dictionary is standard normal over sqrt(n_latents), as in the released code; with
    `unit_norm` its rows are then divided by their length, so they are uniform on the sphere. The
    draw is the same float32 numbers whatever the training device and dtype.
    """
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.n_latents, config.d_model)
    dictionary = torch.randn(shape, generator=generator).to(dtype) / config.n_latents**0.5
    if config.unit_norm:
        project(dictionary)
    if config.tied_init:
        return dictionary.clone(), dictionary
    bound = config.d_model**-0.5
    encoder = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return encoder.to(dtype), dictionary


def project(dictionary: Tensor) -> None:
    """Scale each row to length 1, in place."""
    dictionary.div_(dictionary.norm(dim=1, keepdim=True).clamp_min_(SMALLEST_NORM))
