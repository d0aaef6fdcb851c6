"""The loss that fits guides: focal + lambda Dice against the masks.

`focal_loss` and `dice_loss` are the definitions; `patch_loss` is what a fit uses.

Axes: B images, R x C patch rows and columns, P = R * C patches, H x W pixels.

Source: arXiv 2604.02871, Eq. 8-10; the constants are those of github.com/riips/SPG at 864fca7.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spg_core.anomaly_map import MapOperator
from spg_core.guide_config import Dice
from spg_core.products import inner_products

_EPSILON = 1e-5
_DICE_SMOOTH = 1.0
# pt rises or falls by this much as p goes from 0 to 1.
_SLOPE = 1 - 2 * _EPSILON


def focal_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Give `-(1 - pt)^2 log(pt)`, mean over images and pixels; gamma 2, no alpha.

    The one-hot target is clamped to [1e-5, 1 - 1e-5] and pt = sum(onehot * p) + 1e-5.

    Args:
        probabilities: p_A, `(..., B, H, W)` in [0, 1].
        masks: `(B, H, W)` of 0 and 1 in the dtype of `probabilities`.

    Returns: `(...)`.
    """
    target = masks.clamp(_EPSILON, 1 - _EPSILON)
    # onehot . (1 - p, p) written out for the anomalous channel's target t: (1-t)(1-p) + tp
    pt = (2 * target - 1) * probabilities + (1 - target) + _EPSILON
    return (-(1 - pt).square() * pt.log()).mean(dim=(-3, -2, -1))


def dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Give `1 - mean over images of (2 sum(p y) + 1) / (sum p + sum y + 1)`.

    Args: as `focal_loss`. Returns: `(...)` in [0, 1].
    """
    overlap = (probabilities * masks).sum(dim=(-2, -1))
    total = probabilities.sum(dim=(-2, -1)) + masks.sum(dim=(-2, -1))
    return 1 - ((2 * overlap + _DICE_SMOOTH) / (total + _DICE_SMOOTH)).mean(dim=-1)


@dataclass(frozen=True)
class MapTargets:
    """What the masks of a batch say, as far as it does not depend on the guides."""

    masks: Tensor
    """`(B, H, W)` of 0 and 1."""
    patch_masks: Tensor
    """`(B, P)`: masks taken back to the patches, so `<p, patch_masks>` sums map x mask."""
    patch_pixels: Tensor
    """`(P,)`: the same of a mask full of ones, so `<p, patch_pixels>` sums a map."""
    mask_pixels: Tensor
    """Pixels of each mask that are 1, `(B,)`."""


@dataclass(frozen=True)
class LabelTargets:
    """What is known of whole images."""

    labels: Tensor
    """`(B, 1)` float32: 0 normal, 1 anomalous."""


def label_loss(logits: Tensor, targets: LabelTargets) -> tuple[Tensor, Tensor]:
    """Give the cross-entropy of image labels, mean over images, and its gradient by the logits.

    The two classes' logits are the two cosines, so their difference is all that counts.

    Args:
        logits: cos(token, anomalous guide) - cos(token, normal guide), `(B, 1)`.
        targets: of the same images.

    Returns: the loss, 0-d, and its gradient `(B, 1)`.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, targets.labels)
    return loss, (logits.sigmoid() - targets.labels) / len(logits)


def map_targets(operator: MapOperator, masks: Tensor) -> MapTargets:
    """Prepare masks `(B, H, W)` of 0 and 1, in the operator's dtype; fits on one batch share it."""
    rows, cols = operator.rows_to_pixels, operator.cols_to_pixels
    return MapTargets(
        masks=masks,
        patch_masks=(rows.T @ (masks @ cols)).flatten(1),
        patch_pixels=torch.outer(rows.sum(0), cols.sum(0)).flatten(),
        mask_pixels=masks.sum(dim=(-2, -1)),
    )


def patch_loss(
    patches: Tensor,
    operator: MapOperator,
    targets: MapTargets,
    *,
    dice: Dice,
    lambda_dice: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Give focal + lambda Dice of the maps that patches make, and its gradient by the patches.

    The gradient is written down, without autograd and without a map that outlives its image:

    - Dice needs two sums over a map, and the map is linear in the patches: no pixel is touched.
    - Focal: with `q = (1 - 2e)(p - y)` and a mask of 0 or 1, `1 - pt = |q|` on either side, so
      `-(1 - pt)^2 log pt = -q^2 log1p(-|q|)` and its derivative is `-q (2 log pt - |q| / pt)`.
      An image at a time on the CPU, so that what is in between stays in the processor's cache.

    Args:
        patches: p_A, `(B, P)` in [0, 1].
        operator: from patches to maps.
        targets: of `map_targets` with the same operator.
        dice: `anomaly` for Dice(p_A, Y) (paper), `both` to add Dice(p_N, 1 - Y) (released).
        lambda_dice: weight of Dice.

    Returns: the loss without l1, 0-d, and its gradient `(B, P)`.
    """
    rows, cols = operator.rows_to_pixels.shape[1], operator.cols_to_pixels.shape[1]
    grids = patches.view(-1, rows, cols)
    n_images = len(grids)
    size = 1 if patches.device.type == "cpu" else n_images
    # New memory costs more than the arithmetic on it (422 against 1700 us an image), so it is
    # used again for every image.
    scratch = patches.new_empty((3, size, *targets.masks.shape[1:]))
    parts = [
        _focal(grids[at : at + size], operator, targets.masks[at : at + size], scratch)
        for at in range(0, n_images, size)
    ]
    share = -1 / targets.masks.numel()
    focal = torch.stack([one for one, _ in parts]).sum() * share
    by_focal = torch.cat([one for _, one in parts]).flatten(1) * share
    overlap_loss, by_dice = _dice(patches, targets, both=dice == "both")
    return focal + lambda_dice * overlap_loss, by_focal + lambda_dice * by_dice


def _focal(
    grids: Tensor, operator: MapOperator, masks: Tensor, scratch: Tensor
) -> tuple[Tensor, Tensor]:
    """Give `(1 - pt)^2 log pt` summed over images `(b, R, C)`, and its gradient `(b, R, C)`."""
    rest, log_pt, curve = scratch  # rest is pt - 1
    rows, cols = operator.rows_to_pixels, operator.cols_to_pixels
    half = torch.matmul(rows, grids * _SLOPE).flatten(0, 1)
    signed = inner_products(half, cols).view_as(masks).sub_(masks, alpha=_SLOPE)
    torch.abs(signed, out=rest).neg_()
    torch.log1p(rest, out=log_pt)
    torch.add(rest, 1, out=curve)
    torch.addcdiv(log_pt, rest, curve, value=0.5, out=curve).mul_(signed)
    back = inner_products(curve.flatten(0, 1), cols.T).view(*masks.shape[:2], -1)
    total = log_pt.mul_(signed).mul_(signed).sum()
    return total, torch.matmul(rows.T, back).mul_(2 * _SLOPE)


def _dice(patches: Tensor, targets: MapTargets, *, both: bool) -> tuple[Tensor, Tensor]:
    """Give Dice from sums over patches, and its gradient `(B, P)`."""
    n_images, n_pixels = len(patches), targets.masks[0].numel()
    overlap = (patches * targets.patch_masks).sum(1, keepdim=True)
    p_sum = (patches * targets.patch_pixels).sum(1, keepdim=True)
    y_sum = targets.mask_pixels[:, None]
    bottom = p_sum + y_sum + _DICE_SMOOTH
    ratio = (2 * overlap + _DICE_SMOOTH) / bottom
    by_mask, by_pixel = -2 / bottom, ratio / bottom
    if both:
        top = 2 * (n_pixels - p_sum - y_sum + overlap) + _DICE_SMOOTH
        bottom = 2 * n_pixels - p_sum - y_sum + _DICE_SMOOTH
        other = top / bottom
        # p_N = 1 - p_A falls as p_A rises, and its mask is 1 - y
        by_mask, by_pixel = by_mask - 2 / bottom, by_pixel + (2 - other) / bottom
        ratio = ratio + other
    gradient = (by_mask * targets.patch_masks + by_pixel * targets.patch_pixels) / n_images
    return (2 if both else 1) - ratio.sum() / n_images, gradient
