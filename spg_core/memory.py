"""Memories of normal tokens: how far a token is from the nearest one, and which few stand for many.

Of tokens of length 1, 1 - cosine is half of the squared Euclidean distance, so what is nearest by
the one is nearest by the other. A token of length 0 is at distance 1 from all.

Axes: B images; P patches; n, m tokens; d d_model.

Source: PatchCore (Roth et al., CVPR 2022), Section 3.2 and Algorithm 1; AnomalyDINO (Damm et al.,
WACV 2025), Section 3, and github.com/dammsi/AnomalyDINO, src/detection.py and src/post_eval.py.
"""

import torch
from torch import Tensor

from spg_core.guides import unit
from spg_core.products import inner_products

# 784 rows of 1024 products are 3 MB, which a core's cache holds; 4096 took up to 1.6 times as long.
_BLOCK_TOKENS = 1024


def nearest_distances(tokens: Tensor, memory: Tensor) -> Tensor:
    """Give 1 - cosine to the nearest token of a memory, `(B, P)` in [0, 2], exactly.

    Each image is asked by itself, so its bits do not depend on its company; besides the result
    there are `P` x 1024 products in memory at a time.

    Args:
        tokens: `(B, P, d)` float32 of length 1.
        memory: `(m, d)` of any length and kind of float, m >= 1; a block at a time is cast and
            brought to length 1, for an eighth of the time, so that float16 stays float16.
    """
    found = tokens.new_full(tokens.shape[:-1], -1.0)
    for at in range(0, len(memory), _BLOCK_TOKENS):
        block = unit(memory[at : at + _BLOCK_TOKENS].float())
        for image, nearest in zip(tokens, found, strict=True):
            torch.maximum(nearest, inner_products(image, block).amax(-1), out=nearest)
    return (1 - found).clamp(0, 2)  # rounding can leave a cosine at 1 + 1e-7


def coreset(tokens: Tensor, n_kept: int) -> Tensor:
    """Choose tokens that leave no other far from all of them: greedy k-centre, without chance.

    The first is the one with the largest sum of squared distances to all, each further one is the
    farthest from those before it. No token is then farther from the nearest of them than twice
    what the best choice of so many could reach, in Euclidean distance.

    Args:
        tokens: `(n, d)` float32 of length 1.
        n_kept: how many, 1 to n.

    Returns: their indices `(n_kept,)` int64, in the order in which they were chosen.
    """
    chosen = tokens.new_empty(n_kept, dtype=torch.int64)
    # the sum of 2 - 2 cos over all tokens is largest where the cosine with their sum is smallest
    farness = -(tokens @ tokens.sum(0))
    cosines = torch.full_like(farness, -torch.inf)
    for at in range(n_kept):
        here = farness.argmax(0, keepdim=True)
        chosen[at] = here[0]
        # by an index of one, not by a number, which a GPU would be asked for
        torch.maximum(cosines, tokens @ tokens.index_select(0, here)[0], out=cosines)
        cosines.index_fill_(0, here, torch.inf)  # never twice, even among equal tokens
        farness = -cosines
    return chosen
