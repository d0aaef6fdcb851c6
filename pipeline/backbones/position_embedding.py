"""Learned position embeddings, resized to another patch grid without antialiasing.

n positions, d channels. timm and open_clip antialias, which makes another kernel of bicubic, too
(a = -0.5 instead of -0.75); the authors' encoders do not.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.backbones.presets import PLAIN_BICUBIC, PLAIN_BILINEAR
from spg_core.errors import BackboneError
from spg_core.types import PatchGrid

_MODES = {PLAIN_BICUBIC: "bicubic", PLAIN_BILINEAR: "bilinear"}


def is_ours(how: str) -> bool:
    """Tell whether a way of resizing is this module's; else the library's is used, or none."""
    return how in _MODES


def resize_positions(
    embedding: Tensor, n_prefix: int, grid: PatchGrid, how: str, subject: str
) -> Tensor:
    """Resize a position embedding of a square grid; prefix tokens keep theirs.

    Args:
        embedding: `(n_prefix + n, d)`, or the same with a leading axis of 1.
        n_prefix: positions of class and register tokens, before those of the patches.
        grid: the grid that is wanted.
        how: one of `presets.PLAIN_BICUBIC` and `PLAIN_BILINEAR`.
        subject: what the message begins with, as "FILE does not fit MODEL".

    Raises:
        BackboneError: the positions are those of no square grid.
    """
    flat = embedding.reshape(-1, embedding.shape[-1])
    prefix, patches = flat[:n_prefix], flat[n_prefix:]
    side = math.isqrt(len(patches))
    if side * side != len(patches) or not side:
        raise BackboneError(
            f"{subject}: its position embedding has {len(flat)} positions, {n_prefix} of them "
            "before the patches', which is no square grid; give the weights of this very model"
        )
    if (side, side) == (grid.rows, grid.cols):
        return embedding
    image = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    size = (grid.rows, grid.cols)
    resized = functional.interpolate(image, size, mode=_MODES[how], align_corners=False)
    patches = resized.permute(0, 2, 3, 1).reshape(grid.tokens_per_image, -1)
    return torch.cat([prefix, patches]).reshape(*embedding.shape[:-2], -1, embedding.shape[-1])
