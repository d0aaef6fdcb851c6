"""Exact gradients of the SAE loss, written out, in a dense and a sparse form.

Letters: n tokens, d their width, C atoms, k latents a token. With residual r = f - D z, loss
scale s (see `sae_loss.error_scale`) and e = -2 s r:

    dL/dD = z^T e          dL/dz = (D e + l1) where z is kept, else 0          dL/dW = dz^T f

TopK is locally constant in which entries it keeps, so nothing here is an approximation. Dense
writes z out and spends five products of 2 n d C FLOPs. Sparse needs only the encoder's; the
others touch k of C atoms: the residual meets its active atoms in `sampled_addmm`, and the
(token, atom) pairs sorted by atom make each row of dD and dW one bag of `embedding_bag`. Both
read rows in place; gathering them first would hold n * k * d floats and costs more than it saves.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from spg_core.errors import ConfigError
from spg_core.products import inner_products
from spg_core.sae import Latents, Sae, to_dense, top_latents, weighted_atoms
from spg_core.sae_loss import squared_error
from spg_core.sae_topk import top_set

Path = Literal["dense", "sparse"]
PATHS: tuple[Path, ...] = ("dense", "sparse")

# PyTorch warns once a process that CSR tensors are in beta; our tests compare what we use of them.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(
        torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([0.0]), (1, 1), check_invariants=False
    )


@dataclass(frozen=True)
class SaeGradients:
    """What one batch says about the weights."""

    encoder: Tensor
    """dL/dW `(C, d)`."""
    dictionary: Tensor
    """dL/dD `(C, d)`, by the atoms as used, before any normalisation is taken into account."""
    loss: Tensor
    """0-d."""
    residual: Tensor
    """Tokens minus reconstruction, `(n, d)`."""
    squared_error: Tensor
    """The residual's squares, summed; 0-d."""
    active: Tensor
    """`(C,)` bool: some token activated the atom above the threshold asked for."""
    n_nonzero: Tensor
    """Non-zero latents over all tokens, 0-d."""


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
    latents, kept = _sparsify(sae, inner_products(inputs, sae.encoder, by=by))
    residual = target - inner_products(latents, sae.dictionary.T, by=by).to(tokens.dtype)
    squares = squared_error(residual)
    error = (residual * (-2 * terms.scale)).to(inputs.dtype)
    by_latents = inner_products(error, sae.dictionary, by=by).add_(terms.l1).mul_(kept)
    return SaeGradients(
        encoder=inner_products(by_latents.T, inputs.T, by=by).to(tokens.dtype),
        dictionary=inner_products(latents.T, error.T, by=by).to(tokens.dtype),
        loss=squares * terms.scale + latents.sum(dtype=tokens.dtype) * terms.l1,
        residual=residual,
        squared_error=squares,
        active=(latents > terms.threshold).any(0),
        n_nonzero=latents.count_nonzero(),
    )


def _sparsify(sae: Sae, pre: Tensor) -> tuple[Tensor, Tensor]:
    """Give dense latents `(n, C)` and the mask of those a gradient passes through."""
    match sae.sparsifier:
        case "relu":
            return pre.clamp_min(0), pre > 0
        case "topk":
            values, indices = top_set(pre, sae.k)
            values, kept = _clamp(sae, values)
            mask = torch.zeros_like(pre, dtype=torch.bool).scatter_(1, indices, kept)
            return to_dense(Latents(values, indices), sae.n_latents), mask
        case other:
            raise ConfigError(f"sparsifier {other!r} is not one of topk, relu")


def _clamp(sae: Sae, values: Tensor) -> tuple[Tensor, Tensor]:
    """Clamp TopK's values if the SAE does, and say through which a gradient passes."""
    if sae.clamp:
        return values.clamp_min(0), values >= 0
    return values, torch.ones_like(values, dtype=torch.bool)


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
    values, kept = _clamp(sae, values.to(tokens.dtype))
    latents = Latents(values, indices)
    dictionary = sae.dictionary.to(tokens.dtype)
    reconstruction = weighted_atoms(dictionary, latents, sae.libraries)
    residual = torch.sub(tokens, reconstruction, out=reconstruction)
    squares = squared_error(residual)
    by_values = _residual_at_atoms(residual, dictionary, indices) * (-2 * terms.scale)
    pairs = _PairsByAtom.sort(indices, sae.n_latents)
    return SaeGradients(
        encoder=pairs.accumulate(by_values.mul_(kept), tokens),
        dictionary=pairs.accumulate(values * (-2 * terms.scale), residual),
        loss=squares * terms.scale,
        residual=residual,
        squared_error=squares,
        active=_active(values > terms.threshold, indices, sae.n_latents),
        n_nonzero=values.count_nonzero(),
    )


def _active(above: Tensor, indices: Tensor, n_latents: int) -> Tensor:
    """Mark the atoms `(C,)` that a pair `(n, k)` above the threshold names."""
    # The other pairs all mark one place too many. Leaving them out would make CUDA wait.
    places = torch.where(above, indices, n_latents).reshape(-1)
    marks = torch.zeros(n_latents + 1, dtype=torch.bool, device=indices.device)
    return marks.index_fill_(0, places, True)[:n_latents]


def _residual_at_atoms(residual: Tensor, dictionary: Tensor, indices: Tensor) -> Tensor:
    """Give `<r_n, D_c>` for each listed pair `(n, k)`, and for no other."""
    n_tokens, k = indices.shape
    pattern = torch.sparse_csr_tensor(
        torch.arange(0, n_tokens * k + 1, k, dtype=torch.int32, device=indices.device),
        indices.reshape(-1).int(),
        residual.new_zeros(n_tokens * k),
        (n_tokens, len(dictionary)),
        check_invariants=False,
    )
    products: Tensor = torch.sparse.sampled_addmm(pattern, residual, dictionary.T, beta=0.0)
    return products.values().view(n_tokens, k)


@dataclass(frozen=True)
class _PairsByAtom:
    """The (token, atom) pairs of a batch, sorted by atom; a stable sort, so sums have one order."""

    places: Tensor
    """Where each pair lies in the flattened `(n, k)` list, `(n * k,)`."""
    token_rows: Tensor
    """The pair's token, `(n * k,)`."""
    starts: Tensor
    """Where each atom's pairs begin, `(C,)`."""

    @staticmethod
    def sort(indices: Tensor, n_latents: int) -> "_PairsByAtom":
        # int32 sorts in half the time of int64.
        atoms, places = torch.sort(indices.reshape(-1).int(), stable=True)
        starts = torch.searchsorted(
            atoms, torch.arange(n_latents, dtype=torch.int32, device=indices.device)
        )
        return _PairsByAtom(places, places // indices.shape[1], starts)

    def accumulate(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Add up for each atom its tokens' rows `(n, d)`, weighted by `(n, k)`: `(C, d)`."""
        return functional.embedding_bag(
            self.token_rows,
            rows,
            self.starts,
            mode="sum",
            per_sample_weights=weights.reshape(-1)[self.places],
        )
