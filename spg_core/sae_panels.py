"""Products that read k rows of a table for each token, one panel of columns at a time.

A table of 4096 rows of 1024 floats has 16 MiB, more than a core keeps near; 64 columns of it are
1 MiB and stay there. On a two-core Intel Xeon a bag of rows took 9.1 ms whole and 3.2 by panels,
a training step's four products 47 ms and 32 (4096 tokens, 4096 atoms, k = 32). Sums of rows are
the same bits as whole; inner products differ in rounding.

Letters as in `sae_gradients`: n tokens of width d, C atoms, k latents a token.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

COLUMNS = 64

# PyTorch warns once a process that CSR tensors are in beta; our tests compare what we use of them.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(
        torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([0.0]), (1, 1), check_invariants=False
    )


@dataclass(frozen=True)
class SparseProducts:
    """What a batch of tokens f and its latents z come to, with a factor s."""

    residual: tuple[Tensor, ...]
    """r = f - D z `(n, d)`, by panels."""
    dictionary: Tensor
    """s z^T r, `(C, d)`."""
    encoder: Tensor
    """`(C, d)`: row c sums the tokens whose latent c is kept, weighted by s <r, D_c>."""


@dataclass(frozen=True)
class _Bags:
    """Which rows of a table to add up, bag by bag; int32, as they are read for each panel."""

    rows: Tensor
    """`(n * k,)`."""
    starts: Tensor
    """Where each bag begins in them."""

    def sums(self, table: Tensor, weights: Tensor) -> Tensor:
        return functional.embedding_bag(
            self.rows, table, self.starts, mode="sum", per_sample_weights=weights
        )


def sum_rows(table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Add up the rows of `(C, d)` that indices `(n, k)` name, weighted by `(n, k)`: `(n, d)`."""
    bags, weights = _of_tokens(indices), weights.reshape(-1)
    return torch.cat([bags.sums(panel, weights) for panel in _panels(table)], 1)


def sparse_products(
    tokens: Tensor,
    dictionary: Tensor,
    values: Tensor,
    indices: Tensor,
    kept: Tensor,
    factor: float,
) -> SparseProducts:
    """Multiply what latents name, and nothing else.

    Args:
        tokens: `(n, d)`.
        dictionary: `(C, d)`, of the tokens' dtype.
        values: latents `(n, k)`.
        indices: their atoms `(n, k)` int64, distinct within a token.
        kept: `(n, k)` bool, the latents a gradient passes through.
        factor: s.
    """
    of_tokens, latents = _of_tokens(indices), values.reshape(-1)
    of_atoms, places = _of_atoms(indices, len(dictionary))
    by_latents = (latents * factor)[places]
    met = _nothing_met(of_tokens, latents, len(dictionary))
    token_panels = _panels(tokens)
    residual, by_atoms = [], []
    for some, atoms in zip(token_panels, _panels(dictionary), strict=True):
        rest = of_tokens.sums(atoms, latents)
        torch.sub(some, rest, out=rest)
        torch.sparse.sampled_addmm(met, rest, atoms.T, out=met)
        by_atoms.append(of_atoms.sums(rest, by_latents))
        residual.append(rest)
    by_meeting = (met.values() * factor).mul_(kept.reshape(-1))[places]
    by_encoder = [of_atoms.sums(some, by_meeting) for some in token_panels]
    return SparseProducts(tuple(residual), torch.cat(by_atoms, 1), torch.cat(by_encoder, 1))


def _panels(table: Tensor) -> Sequence[Tensor]:
    return [panel.contiguous() for panel in torch.split(table, COLUMNS, 1)]


def _of_tokens(indices: Tensor) -> _Bags:
    """A bag of atoms for each token."""
    n_tokens, k = indices.shape
    starts = torch.arange(0, n_tokens * k, k, dtype=torch.int32, device=indices.device)
    return _Bags(indices.reshape(-1).int(), starts)


def _of_atoms(indices: Tensor, n_atoms: int) -> tuple[_Bags, Tensor]:
    """A bag of tokens for each atom, and where each pair lies in the flattened `(n, k)` list.

    Stable, so sums have one order.
    """
    atoms, places = torch.sort(indices.reshape(-1).int(), stable=True)  # half the time of int64
    starts = torch.searchsorted(
        atoms, torch.arange(n_atoms, dtype=torch.int32, device=indices.device), out_int32=True
    )
    return _Bags((places // indices.shape[1]).int(), starts), places


def _nothing_met(of_tokens: _Bags, latents: Tensor, n_atoms: int) -> Tensor:
    """Zeros in place of each pair, for `sampled_addmm` to add inner products to."""
    starts = functional.pad(of_tokens.starts, (0, 1), value=len(latents))
    return torch.sparse_csr_tensor(
        starts,
        of_tokens.rows,
        torch.zeros_like(latents),
        (len(of_tokens.starts), n_atoms),
        check_invariants=False,
    )
