"""Exact gradients of the SAE loss, written out, in a dense and a sparse form.

Letters: n tokens, d their width, C atoms, k latents a token. With residual r = f - D z, loss
scale s (see `sae_loss.error_scale`) and e = -2 s r:

    dL/dD = z^T e          dL/dz = (D e + l1) where z is kept, else 0          dL/dW = dz^T f

TopK is locally constant in which entries it keeps, so nothing here is an approximation. Dense
writes z out and spends five products of 2 n d C FLOPs. Sparse needs only the encoder's; the
others touch k of C atoms (`sae_panels`): the residual meets its active atoms in `sampled_addmm`,
and the (token, atom) pairs sorted by atom make each row of dD and dW one bag of `embedding_bag`.
Both read rows in place; gathering them first would hold n * k * d floats and cost more than it
saves.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spg_core.errors import ConfigError
from spg_core.products import inner_products
from spg_core.sae import Latents, Sae, to_dense, top_latents
from spg_core.sae_loss import squared_error
from spg_core.sae_panels import sparse_products
from spg_core.sae_topk import top_set

Path = Literal["dense", "sparse"]
PATHS: tuple[Path, ...] = ("dense", "sparse")


@dataclass(frozen=True)
class SaeGradients:
    """What one batch says about the weights."""

    encoder: Tensor
    """dL/dW `(C, d)`."""
    dictionary: Tensor
    """dL/dD `(C, d)`, by the atoms as used, before any normalisation is taken into account."""
    loss: Tensor
    """0-d."""
    residual_panels: tuple[Tensor, ...]
    """Tokens minus reconstruction `(n, d)`, by columns: a step without AuxK never joins them."""
    squared_error: Tensor
    """The residual's squares, summed; 0-d."""
    active: Tensor
    """`(C,)` bool: some token activated the atom above the threshold asked for."""
    n_nonzero: Tensor
    """Non-zero latents over all tokens, 0-d."""

    @property
    def residual(self) -> Tensor:
        """Tokens minus reconstruction, `(n, d)`."""
        panels = self.residual_panels
        return panels[0] if len(panels) == 1 else torch.cat(panels, 1)


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The loss: scale x squared error + l1 x sum of latents, over all tokens of the batch."""

    scale: float
    """Weight of the squared error; see `sae_loss.error_scale`."""
    l1: float
    """Weight of the latents' sum; 0 under `topk`."""
    threshold: float
    """Above it an atom counts as active; no part of the loss."""


def gradients(path: Path, sae: Sae, tokens: Tensor, terms: LossTerms) -> SaeGradients:
    """Compute the loss of tokens `(n, d)` and its gradients by the path named."""
    match path:
        case "dense":
            return dense_gradients(sae, tokens, tokens, terms)
        case "sparse":
            return sparse_gradients(sae, tokens, terms)
        case other:
            raise ConfigError(f"path {other!r} is not one of dense, sparse")


def dense_gradients(sae: Sae, tokens: Tensor, target: Tensor, terms: LossTerms) -> SaeGradients:
    """Compute the gradients with latents written out in full, for either sparsifier.

    The products read what the SAE's weights are stored in (bfloat16 on CUDA); sums over tokens,
    the loss and the results keep the tokens' dtype.

    Args:
        sae: the weights as they are used.
        tokens: `(n, d)`, what is encoded.
        target: `(n, d)`, what the latents should reconstruct: the tokens, or a residual for AuxK.
        terms: the loss.
    """
    inputs = tokens.to(sae.encoder.dtype)
    by = sae.libraries
    found = _sparsify(sae, inner_products(inputs, sae.encoder, by=by))
    latents = found.dense()
    residual = target - inner_products(latents, sae.dictionary.T, by=by).to(tokens.dtype)
    squares = squared_error(residual)
    error = (residual * (-2 * terms.scale)).to(inputs.dtype)
    by_latents = found.restrict(inner_products(error, sae.dictionary, by=by), terms.l1)
    return SaeGradients(
        encoder=inner_products(by_latents.T, inputs.T, by=by).to(tokens.dtype),
        dictionary=inner_products(latents.T, error.T, by=by).to(tokens.dtype),
        loss=squares * terms.scale + found.values.sum(dtype=tokens.dtype) * terms.l1,
        residual_panels=(residual,),
        squared_error=squares,
        active=found.active(terms.threshold),
        n_nonzero=found.values.count_nonzero(),
    )


def _sparsify(sae: Sae, pre: Tensor) -> "_Positive | _Largest":
    match sae.sparsifier:
        case "relu":
            return _Positive(pre.clamp_min(0))
        case "topk":
            return _Largest.of(sae, *top_set(pre, sae.k))
        case other:
            raise ConfigError(f"sparsifier {other!r} is not one of topk, relu")


@dataclass(frozen=True)
class _Positive:
    """What relu leaves of pre-activations: all of them, or 0."""

    values: Tensor
    """`(n, C)`."""

    def dense(self) -> Tensor:
        return self.values

    def restrict(self, by_latents: Tensor, l1: float) -> Tensor:
        """Turn `(n, C)` in place into the gradient by latents, 0 where none passes."""
        return by_latents.add_(l1).masked_fill_(self.values <= 0, 0.0)

    def active(self, threshold: float) -> Tensor:
        return (self.values > threshold).any(0)


@dataclass(frozen=True)
class _Largest:
    """What TopK leaves: k a token, so that little of `(n, C)` need be looked at."""

    values: Tensor
    """`(n, k)`, clamped if the SAE does."""
    indices: Tensor
    """`(n, k)`."""
    kept: Tensor
    """`(n, k)` bool, through which a gradient passes."""
    n_latents: int
    """C."""

    @staticmethod
    def of(sae: Sae, values: Tensor, indices: Tensor) -> "_Largest":
        if sae.clamp:
            return _Largest(values.clamp_min(0), indices, values >= 0, sae.n_latents)
        kept = torch.ones_like(values, dtype=torch.bool)
        return _Largest(values, indices, kept, sae.n_latents)

    def dense(self) -> Tensor:
        return to_dense(Latents(self.values, self.indices), self.n_latents)

    def restrict(self, by_latents: Tensor, l1: float) -> Tensor:
        """Turn `(n, C)` in place into the gradient by latents, 0 where none passes."""
        by_values = by_latents.gather(1, self.indices).add_(l1).mul_(self.kept)
        return by_latents.zero_().scatter_(1, self.indices, by_values)

    def active(self, threshold: float) -> Tensor:
        """Mark the atoms `(C,)` that a pair `(n, k)` above the threshold names."""
        # The other pairs all mark one place too many. Leaving them out would make CUDA wait.
        places = torch.where(self.values > threshold, self.indices, self.n_latents).reshape(-1)
        marks = torch.zeros(self.n_latents + 1, dtype=torch.bool, device=places.device)
        return marks.scatter_(0, places, True)[: self.n_latents]


def sparse_gradients(sae: Sae, tokens: Tensor, terms: LossTerms) -> SaeGradients:
    """Compute the gradients of a TopK SAE, touching k atoms a token after the encoder.

    Float32 on the CPU; in float64 `embedding_bag` falls back to gathering, which tests can afford.

    Args:
        sae: the weights as they are used; if bfloat16, only the encoder's product is made in it.
        tokens: `(n, d)`.
        terms: the loss; l1 must be 0.
    """
    if sae.sparsifier != "topk" or terms.l1 != 0:
        raise ConfigError("the sparse path needs topk without l1; use the dense one")
    inputs = tokens.to(sae.encoder.dtype)
    values, indices = top_latents(sae, inputs, ranked=False)
    latents = _Largest.of(sae, values.to(tokens.dtype), indices)
    dictionary, factor = sae.dictionary.to(tokens.dtype), -2 * terms.scale
    found = sparse_products(
        tokens, dictionary, latents.values, indices, kept=latents.kept, factor=factor
    )
    squares = torch.stack([squared_error(panel) for panel in found.residual]).sum()
    return SaeGradients(
        encoder=found.encoder,
        dictionary=found.dictionary,
        loss=squares * terms.scale,
        residual_panels=found.residual,
        squared_error=squares,
        active=latents.active(terms.threshold),
        n_nonzero=latents.values.count_nonzero(),
    )
