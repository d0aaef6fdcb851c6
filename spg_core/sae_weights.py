"""An SAE's weights in training, and those it starts from. C atoms of width d."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spg_core.products import DEFAULT, Libraries
from spg_core.sae import Sae
from spg_core.sae_config import SaeConfig

# Atoms shorter than this are not stretched to length 1.
SMALLEST_NORM = 1e-8


@dataclass(frozen=True)
class SaeWeights:
    """Weights and Adam's state."""

    encoder: Tensor
    """`(C, d)`, float32 (float64 in tests)."""
    dictionary: Tensor
    """`(C, d)`; rows of length 1 under `unit_norm`."""
    encoder_mean: Tensor
    """Adam's running mean of the gradient, `(C, d)`."""
    dictionary_mean: Tensor
    encoder_square: Tensor
    """Adam's running mean of the squared gradient, `(C, d)`."""
    dictionary_square: Tensor
    n_steps: Tensor
    """Steps taken, 0-d float64, so that `1 - beta ** n` keeps its digits."""

    @staticmethod
    def start(encoder: Tensor, dictionary: Tensor) -> "SaeWeights":
        """Take weights at the start of training."""
        return SaeWeights(
            encoder=encoder,
            dictionary=dictionary,
            encoder_mean=torch.zeros_like(encoder),
            dictionary_mean=torch.zeros_like(dictionary),
            encoder_square=torch.zeros_like(encoder),
            dictionary_square=torch.zeros_like(dictionary),
            n_steps=torch.zeros((), dtype=torch.float64, device=encoder.device),
        )

    def as_sae(
        self, config: SaeConfig, products: torch.dtype, libraries: Libraries = DEFAULT
    ) -> Sae:
        """Give the weights as products read them: atoms have length 1 already, see `update`."""
        return Sae(
            encoder=self.encoder.to(products),
            dictionary=self.dictionary.to(products),
            k=config.k,
            sparsifier=config.sparsifier,
            clamp=config.clamp,
            libraries=libraries,
        )


def initial_weights(
    config: SaeConfig, d_model: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Draw encoder and dictionary, each `(width, d_model)`, on the CPU.

    The dictionary is standard normal over sqrt(width), as in the released code; with
    `unit_norm` its rows are then divided by their length, so they are uniform on the sphere. The
    draw is the same float32 numbers whatever the training device and dtype.
    """
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.width, d_model)
    dictionary = torch.randn(shape, generator=generator).to(dtype) / config.width**0.5
    if config.unit_norm:
        project(dictionary)
    if config.tied_init:
        return dictionary.clone(), dictionary
    bound = d_model**-0.5
    encoder = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return encoder.to(dtype), dictionary


def project(dictionary: Tensor) -> None:
    """Scale each row to length 1, in place."""
    dictionary.div_(dictionary.norm(dim=1, keepdim=True).clamp_min_(SMALLEST_NORM))
