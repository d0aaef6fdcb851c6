"""How often each atom is active, where, and its strongest patches: what an atom browser shows.

A atoms, G groups of images (a category and a defect), K patches kept an atom. Everything is counted
in whole numbers over a stream of blocks, so blocks of any size and order give the same to the bit.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spg_core.errors import ConfigError
from spg_core.sae import Sae, encode
from spg_core.types import PatchGrid

NORMAL, DEFECT, UNKNOWN = 0, 1, 2
"""What a patch is: no pixel marked, at least one marked, or a defective image without a mask."""
MIN_ACTIVE: Final = 10
"""Active patches below which a lift says nothing."""


@dataclass(frozen=True)
class Active:
    """The places where atoms are active in a block, in no order; `m` of them."""

    atom: NDArray[np.int64]
    """`(m,)` in [0, A): places in the list of atoms asked for."""
    token: NDArray[np.int64]
    """`(m,)` in [0, n)."""
    value: NDArray[np.float32]
    """`(m,)` above 0."""


def active_entries(sae: Sae, tokens: Tensor, atoms: Tensor) -> Active:
    """Find where some atoms `(A,)`, all distinct, are active over tokens `(n, d)`.

    Active is a latent above 0 among those that the SAE decodes with: under `topk` one of a token's
    k largest.

    Raises: ArtifactError, ConfigError as `encode`.
    """
    latents = encode(sae, tokens)
    place = torch.full((sae.n_latents,), -1, device=tokens.device)
    place[atoms] = torch.arange(len(atoms), device=tokens.device)
    slots = place[latents.indices]
    token, entry = ((latents.values > 0) & (slots >= 0)).nonzero(as_tuple=True)
    return Active(
        atom=slots[token, entry].cpu().numpy(),
        token=token.cpu().numpy(),
        value=latents.values[token, entry].float().cpu().numpy(),
    )


class StrongestPatches:
    """The K strongest patches of each of A atoms among all added so far.

    Equal activations are ranked by image row, then by patch. An atom with fewer than K active
    patches leaves its last places empty.
    """

    def __init__(self, n_atoms: int, *, keep: int, one_per_image: bool) -> None:
        """Raises: ConfigError if nothing is to be kept."""
        if keep < 1:
            raise ConfigError(f"patches to keep an atom must be 1 or more, got {keep}")
        self.activation = np.zeros((n_atoms, keep), np.float32)
        """`(A, K)`, strongest first; 0 marks an empty place."""
        self.row = np.full((n_atoms, keep), -1, np.int64)
        """`(A, K)` image rows; -1 marks an empty place."""
        self.patch = np.full((n_atoms, keep), -1, np.int64)
        """`(A, K)` in [0, P); -1 marks an empty place."""
        self._one_per_image = one_per_image

    def add(self, found: Active, row: NDArray[np.int64], patch: NDArray[np.int64]) -> None:
        """Take a block of images not added before.

        Args:
            found: where atoms are active.
            row: image row of each entry, `(m,)`.
            patch: patch of each entry, `(m,)`.
        """
        # what is below the last place of its atom cannot enter; an equal one may, by its row
        may = np.flatnonzero(found.value >= self.activation[found.atom, -1])
        new = found.atom[may], row[may], patch[may], found.value[may]
        touched = np.unique(new[0])
        at, place = np.nonzero(self.activation[touched] > 0)
        held = touched[at], place
        old = held[0], self.row[held], self.patch[held], self.activation[held]
        atom, row, patch, value = _ranked(
            [np.concatenate([old[at], new[at]]) for at in range(4)],
            one_per_image=self._one_per_image,
        )
        rank = np.arange(len(atom)) - np.searchsorted(atom, atom)
        kept = rank < self.activation.shape[1]
        self.activation[touched], self.row[touched], self.patch[touched] = 0, -1, -1
        to = atom[kept], rank[kept]
        self.activation[to], self.row[to], self.patch[to] = value[kept], row[kept], patch[kept]


def _ranked(entries: list[NDArray[Any]], *, one_per_image: bool) -> list[NDArray[Any]]:
    """Sort entries (atom, row, patch, value) by atom, then strongest first."""
    atom, row, patch, value = entries
    order = np.lexsort((patch, row, -value, atom))
    if one_per_image:
        # the first in this order of each pair of atom and image
        pair = atom[order] * (row.max(initial=0) + 1) + row[order]
        order = order[np.sort(np.unique(pair, return_index=True)[1])]
    return [one[order] for one in entries]


class AtomCounts:
    """Active tokens of each of A atoms, by the image's group and by what the patch is."""

    def __init__(self, n_atoms: int, n_groups: int) -> None:
        self.active = np.zeros((n_atoms, n_groups, 3), np.int64)
        """`(A, G, 3)`, the last axis NORMAL, DEFECT, UNKNOWN."""
        self.tokens = np.zeros((n_groups, 3), np.int64)
        """`(G, 3)`: all tokens, active or not."""

    def add(self, found: Active, group: NDArray[np.int64], state: NDArray[np.int64]) -> None:
        """Take a block in.

        Args:
            found: where atoms are active among its `n` tokens.
            group: of each token, `(n,)` in [0, G).
            state: of each token, `(n,)`: NORMAL, DEFECT or UNKNOWN.
        """
        kind = 3 * group + state
        n_kinds = self.tokens.size
        self.tokens += np.bincount(kind, minlength=n_kinds).reshape(self.tokens.shape)
        cell, times = np.unique(found.atom * n_kinds + kind[found.token], return_counts=True)
        self.active.reshape(-1)[cell] += times

    def frequency(self) -> NDArray[np.float64]:
        """Share of all tokens in which each atom is active, `(A,)` in [0, 1]."""
        share: NDArray[np.float64] = self.active.sum((1, 2)) / self.tokens.sum()
        return share


def rates(active: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give P(active | token of a class), NaN for a class without tokens, `(A, C)`.

    Args:
        active: tokens of each class in which each atom is active, `(A, C)`.
        tokens: tokens of each class, `(C,)`.
    """
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = active / tokens
    return found


def shares(rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn rates `(A, C)` into shares that add up to 1 an atom; all 0 for one never active.

    As if every class had as many tokens: a class with many is not a favourite for that. A class
    without tokens (NaN) has no share.
    """
    known = np.nan_to_num(rate)
    total = known.sum(1, keepdims=True)
    return known / np.where(total > 0, total, 1)


def evenness(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the entropy of shares `(A, C)` over log C, `(A,)`: 0 one class takes all, 1 all alike.

    NaN for an atom never active, and where there is one class only.
    """
    n_classes = share.shape[1]
    if n_classes < 2:
        return np.full(len(share), np.nan)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy = np.abs(-(share * logs).sum(1)) / np.log(n_classes)
    return np.where(share.sum(1) > 0, entropy.clip(0, 1), np.nan)


def defect_lift(
    active: NDArray[np.int64], tokens: NDArray[np.int64], min_active: int = MIN_ACTIVE
) -> NDArray[np.float64]:
    """Give P(active | defect patch) / P(active | normal patch) of each atom, `(A,)`.

    Infinite where no normal patch activates the atom. NaN below `min_active` active patches of the
    two kinds together, and where there are no patches of one kind.

    Args:
        active: `(A, 3)` active tokens NORMAL, DEFECT, UNKNOWN; the last do not count.
        tokens: `(3,)` all tokens.
        min_active: at least 1.
    """
    normal, defect = active[:, NORMAL], active[:, DEFECT]
    enough = (normal + defect >= min_active) & (tokens[NORMAL] > 0) & (tokens[DEFECT] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = (defect / tokens[DEFECT]) / (normal / tokens[NORMAL])
    return np.where(enough, lift, np.nan)


def marked_patches(masks: NDArray[np.uint8], grid: PatchGrid) -> NDArray[np.bool_]:
    """Tell which patches hold at least one marked pixel, `(n, P)`.

    Args:
        masks: `(n, height, width)` of 0 and 1; the grid covers them evenly.
        grid: of the patches; a patch has at least a pixel.
    """
    _, height, width = masks.shape
    tops = np.arange(grid.rows) * height // grid.rows
    lefts = np.arange(grid.cols) * width // grid.cols
    in_rows = np.maximum.reduceat(masks, tops, axis=1)
    marked: NDArray[np.bool_] = np.maximum.reduceat(in_rows, lefts, axis=2) > 0
    return marked.reshape(len(masks), -1)
