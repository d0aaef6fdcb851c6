"""Whether a detector knows the like of an image: how far its patches are from those of good parts.

The strangeness of an image is a low quantile of its patches' distances to their nearest tokens of
known good parts: a defect, even a large one, leaves most patches where they were, another scene
leaves few. What is usual is measured on the good parts themselves, each without itself.

Measured on a ViT-Tiny (docs/design/017-decisions.md): distances to the auxiliary set's tokens, and
the SAE's reconstruction error, do not tell an absurd image from a product never seen.

Axes: n images; P patches; m kept tokens; d d_model.
"""

from typing import Final

import torch
from torch import Tensor

from spg_core.errors import MetricError
from spg_core.guides import unit
from spg_core.memory import nearest_distances

SHARE: Final = 0.25
"""Of an image's patches; the quantile of their distances is its strangeness."""
TIMES: Final = 1.5
"""How many times as strange as the strangest good part an image may be."""
FEWEST: Final = 3
"""Good parts from which on something can be said."""
MOST_TOKENS: Final = 4096
"""Tokens that are kept, of all good parts together."""
_LEAST: Final = 1e-3  # of parts that are copies but for noise, every other image would be strange


def strangeness(tokens: Tensor, known: Tensor) -> Tensor:
    """Give how far each image is from the known tokens, `(n,)` in [0, 2].

    Args:
        tokens: `(n, P, d)` of any length and kind of float.
        known: `(m, d)` likewise, m >= 1.
    """
    return nearest_distances(unit(tokens.float()), known).quantile(SHARE, dim=-1)


def applicability(strange: Tensor, limit: float) -> Tensor:
    """Turn strangeness into what a person reads: 1 is nothing new, below 0.5 is unlike all."""
    return limit / (limit + strange)


def kept_rows(n_images: int, n_patches: int, most: int = MOST_TOKENS) -> Tensor:
    """Choose which patches of each image are kept, `(n_images, k)` int64 in ascending order.

    By chance, the same at each call, and as many of each image: so many that all together are at
    most `most`, and at least one.
    """
    generator = torch.Generator().manual_seed(0)
    k = max(1, min(n_patches, most // n_images))
    chosen = [torch.randperm(n_patches, generator=generator)[:k] for _ in range(n_images)]
    return torch.stack(chosen).sort(dim=-1).values


def usual_limit(tokens: Tensor, rows: Tensor) -> float:
    """Give the strangeness up to which an image is like the good parts.

    `TIMES` the largest of a good part among the kept tokens of the others.

    Args:
        tokens: `(n, P, d)` of the good parts, n >= `FEWEST`.
        rows: `(n, k)` of `kept_rows`.

    Raises: MetricError for too few.
    """
    n = len(tokens)
    if n < FEWEST:
        raise MetricError(f"{n} good parts; from {FEWEST} on it can be said what is usual")
    kept = torch.stack([one[row] for one, row in zip(tokens, rows, strict=True)])
    others = [torch.cat([kept[:at], kept[at + 1 :]]).flatten(0, 1) for at in range(n)]
    found = [strangeness(tokens[at : at + 1], others[at]) for at in range(n)]
    return max(float(torch.cat(found).max()) * TIMES, _LEAST)
