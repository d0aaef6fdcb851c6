"""Each atom's strongest patches over a stream of images, in memory that does not grow with them.

A atoms, B images of a block, P patches an image, K patches kept an atom, n = B * P tokens.
Source: SPG (arXiv 2604.02871), Fig. 5: the top-8 auxiliary patches of an atom by activation.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spg_core.errors import ConfigError
from spg_core.products import inner_products
from spg_core.sae import Sae, encode
from spg_core.sae_topk import top_entries


def atom_activations(sae: Sae, tokens: Tensor, atoms: Tensor) -> Tensor:
    """Give the activations `(A, n)` >= 0 of some atoms `(A,)`, all distinct, over tokens `(n, d)`.

    They are the latents the SAE decodes with: under `topk` 0 wherever another k atoms won.
    Negative latents, which an SAE without a clamp has, count as 0: they mark absence.

    Raises:
        ArtifactError: the tokens are not as wide as the SAE.
        ConfigError: another sparsifier.
    """
    match sae.sparsifier:
        case "relu":
            return inner_products(sae.encoder[atoms], tokens).clamp_min(0)
        case "topk":
            latents = encode(sae, tokens)
            slots = torch.full((sae.n_latents,), -1, device=tokens.device)
            slots[atoms] = torch.arange(len(atoms), device=tokens.device)
            slot = slots[latents.indices]
            token, entry = (slot >= 0).nonzero(as_tuple=True)
            found = tokens.new_zeros((len(atoms), len(tokens)))
            found[slot[token, entry], token] = latents.values[token, entry].clamp_min(0)
            return found
        case other:
            raise ConfigError(f"sparsifier {other!r} is not one of topk, relu")


class TopPatches:
    """The K strongest patches of each of A atoms among all images added so far.

    Equal activations are ranked by image row, then by patch, so blocks of any size and any order
    give the same. An atom with fewer than K active patches leaves its last places empty.
    """

    def __init__(self, n_atoms: int, n_patches: int, *, keep: int, one_per_image: bool) -> None:
        """Raises: ConfigError if nothing is to be kept."""
        if keep < 1:
            raise ConfigError(f"patches to keep an atom must be 1 or more, got {keep}")
        self.activation = np.zeros((n_atoms, keep), np.float32)
        """`(A, K)`, strongest first; 0 marks an empty place."""
        self.row = np.full((n_atoms, keep), -1, np.int64)
        """`(A, K)` image rows; -1 marks an empty place."""
        self.patch = np.full((n_atoms, keep), -1, np.int64)
        """`(A, K)` in [0, P); -1 marks an empty place."""
        self.maps = np.zeros((n_atoms, keep, n_patches), np.float32)
        """`(A, K, P)`: the atom's activation over the whole image that a patch comes from."""
        self._per_image = 1 if one_per_image else min(keep, n_patches)

    def add(self, rows: NDArray[np.int64], activations: NDArray[np.float32]) -> None:
        """Take a block in: image rows `(B,)` not added before, activations `(A, B, P)` >= 0."""
        n_atoms, n_images, n_patches = activations.shape
        keep = self.activation.shape[1]
        flat = torch.from_numpy(activations).reshape(-1, n_patches)
        values, patches = top_entries(flat, self._per_image)
        image = np.repeat(np.arange(n_images), self._per_image)
        shape = (n_atoms, n_images * self._per_image)
        row = np.broadcast_to(rows[image], shape)
        activation = np.concatenate([self.activation, values.numpy().reshape(shape)], axis=1)
        row = np.concatenate([self.row, row], axis=1)
        patch = np.concatenate([self.patch, patches.numpy().reshape(shape)], axis=1)
        order = np.lexsort((patch, row, -activation), axis=-1)[:, :keep]
        self.activation = np.take_along_axis(activation, order, axis=1)
        active = self.activation > 0
        self.row = np.where(active, np.take_along_axis(row, order, axis=1), -1)
        self.patch = np.where(active, np.take_along_axis(patch, order, axis=1), -1)
        # which of the K maps held and the B maps new a place now shows
        source = np.concatenate([np.arange(keep), keep + image])[order]
        maps = np.concatenate([self.maps, activations], axis=1)
        self.maps = maps[np.arange(n_atoms)[:, None], source] * active[..., None]
