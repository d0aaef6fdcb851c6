"""A sparse autoencoder: tokens to sparse latents and back.

    z = TopK(W_enc f; k), clamped at 0        (or z = relu(W_enc f))
    f_hat = sum_c z_c D_c

`n` tokens of width `d_model`, `n_latents` atoms. No biases: neither recipe has them.
Source: SPG (arXiv 2604.02871), eq. 1-2; TopK after Gao et al. 2024 (arXiv 2406.04093), eq. 3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spg_core.errors import ArtifactError, ConfigError
from spg_core.products import DEFAULT, Libraries, inner_products
from spg_core.sae_config import Sparsifier
from spg_core.sae_panels import sum_rows
from spg_core.sae_topk import top_entries, top_set

# Tokens whose pre-activations are held at once: 1024 x 4096 floats are 16 MiB.
CHUNK_TOKENS = 1024
# Above this share of latents a token, a matrix product beats gathering atoms.
_DENSE_SHARE = 1 / 8


@dataclass(frozen=True)
class Sae:
    """A trained sparse autoencoder."""

    encoder: Tensor
    """`(n_latents, d_model)`; a latent's pre-activation is the inner product with its row."""
    dictionary: Tensor
    """`(n_latents, d_model)`; row c is atom c."""
    k: int
    """Latents kept a token under `topk`; unused under `relu`."""
    sparsifier: Sparsifier = "topk"
    """What makes the latents sparse."""
    clamp: bool = True
    """Whether `topk` sets negative latents to 0."""
    libraries: Libraries = DEFAULT
    """Who makes its products on the CPU."""

    def __post_init__(self) -> None:
        if self.encoder.ndim != 2 or self.encoder.shape != self.dictionary.shape:
            raise ArtifactError(
                f"encoder {tuple(self.encoder.shape)} and dictionary "
                f"{tuple(self.dictionary.shape)} should both be (n_latents, d_model); "
                "do they come from one SAE?"
            )
        if self.sparsifier == "topk" and not 1 <= self.k <= self.n_latents:
            raise ConfigError(
                f"k = {self.k} latents a token, but the SAE has {self.n_latents} atoms; "
                f"choose k from 1 to {self.n_latents}"
            )

    @property
    def n_latents(self) -> int:
        """Atoms in the dictionary."""
        return self.encoder.shape[0]

    @property
    def d_model(self) -> int:
        """Width of a token."""
        return self.encoder.shape[1]


@dataclass(frozen=True)
class Latents:
    """Sparse activations: `m` entries a token; a latent that is not listed is 0."""

    values: Tensor
    """`(n, m)`."""
    indices: Tensor
    """`(n, m)` int64, distinct within a token, in [0, n_latents)."""


def encode(sae: Sae, tokens: Tensor) -> Latents:
    """Turn tokens `(n, d_model)` into latents, `CHUNK_TOKENS` at a time.

    Under `topk` a token has k entries, largest first. Under `relu` it has all `n_latents`, in
    order, most of them 0.

    Raises:
        ArtifactError: the tokens are not as wide as the SAE.
    """
    check_width(tokens, sae.d_model)
    match sae.sparsifier:
        case "topk":
            return _encode_topk(sae, tokens)
        case "relu":
            values = inner_products(tokens, sae.encoder, by=sae.libraries).clamp_min(0)
            everything = torch.arange(sae.n_latents, device=tokens.device)
            return Latents(values, everything.expand(len(tokens), -1))
        case other:
            raise ConfigError(f"sparsifier {other!r} is not one of topk, relu")


def _encode_topk(sae: Sae, tokens: Tensor) -> Latents:
    values, indices = top_latents(sae, tokens, ranked=True)
    return Latents(values.clamp_min(0) if sae.clamp else values, indices)


def top_latents(sae: Sae, tokens: Tensor, *, ranked: bool) -> tuple[Tensor, Tensor]:
    """Give each token's k largest pre-activations `(n, k)`, not clamped, and their indices.

    Largest first if `ranked`; in an order left open if not, which is cheaper.
    """
    top = top_entries if ranked else top_set
    values = tokens.new_empty((len(tokens), sae.k))
    indices = torch.empty((len(tokens), sae.k), dtype=torch.int64, device=tokens.device)
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = slice(start, start + CHUNK_TOKENS)
        pre = inner_products(tokens[chunk], sae.encoder, by=sae.libraries)
        values[chunk], indices[chunk] = top(pre, sae.k)
    return values, indices


def to_dense(latents: Latents, n_latents: int) -> Tensor:
    """Write latents out in full, `(n, n_latents)`."""
    values = latents.values
    return values.new_zeros((len(values), n_latents)).scatter_(1, latents.indices, values)


def decode(sae: Sae, latents: Latents) -> Tensor:
    """Add up each token's atoms, weighted by its latents: `(n, d_model)`."""
    return weighted_atoms(sae.dictionary, latents, sae.libraries)


def weighted_atoms(dictionary: Tensor, latents: Latents, by: Libraries = DEFAULT) -> Tensor:
    """Add up the rows of a dictionary `(n_latents, d_model)`, weighted by latents."""
    if latents.values.shape[1] > _DENSE_SHARE * len(dictionary):
        return inner_products(to_dense(latents, len(dictionary)), dictionary.T, by=by)
    return sum_rows(dictionary, latents.indices, latents.values)


def check_width(tokens: Tensor, d_model: int) -> None:
    """Refuse tokens that are not `(n, d_model)`.

    Raises:
        ArtifactError: with both widths.
    """
    if tokens.ndim != 2 or tokens.shape[1] != d_model:
        raise ArtifactError(
            f"tokens of shape {tuple(tokens.shape)}, expected (n, {d_model}); "
            "was the SAE made for another backbone or layer?"
        )
