"""The loss that fits guides: focal + Dice against the masks.

Axes: G fits, B images, H x W pixels. A leading G is optional; it is never averaged away.

Source: arXiv 2604.02871, Eq. 8-10; the constants are those of github.com/riips/SPG at 864fca7.
"""

from typing import Any

import torch
from torch import Tensor

from spg_core.errors import ConfigError

_EPSILON = 1e-5
_DICE_SMOOTH = 1.0


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


def map_loss(probabilities: Tensor, masks: Tensor, *, dice: str) -> Tensor:
    """Give focal + Dice of pixel probabilities, without the l1 term.

    Args:
        probabilities: p_A, `(..., B, H, W)` in [0, 1].
        masks: `(B, H, W)` of 0 and 1.
        dice: `anomaly` for Dice(p_A, Y) (paper), `both` to add Dice(p_N, 1 - Y) (released).

    Raises: ConfigError for another `dice`.
    """
    loss: Tensor
    match dice:
        case "anomaly" | "both":
            loss = _MapLoss.apply(probabilities, masks, dice == "both")
            return loss
        case _:
            raise ConfigError(f"dice is 'anomaly' or 'both', got {dice!r}")


class _MapLoss(torch.autograd.Function):
    """Focal + Dice with the gradient written down, an image at a time on the CPU.

    `(1 - pt)^2 log pt` depends on p only through pt, and Dice through two sums an image, so the
    gradient needs no more than pt, log pt and those sums. The intermediate maps of one image stay
    in the processor's cache; those of a whole batch went through memory and took twice as long.
    Tested against `focal_loss + dice_loss` under plain autograd.
    """

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, masks: Tensor, both: bool) -> Tensor:
        n_images = masks.shape[-3]
        size = 1 if probabilities.device.type == "cpu" else n_images
        grad = torch.empty_like(probabilities)
        loss = probabilities.new_zeros(probabilities.shape[:-3])
        for start in range(0, n_images, size):
            part = slice(start, start + size)
            p, y = probabilities[..., part, :, :], masks[..., part, :, :]
            focal, focal_grad = _focal_parts(p, y, masks.numel())
            dice, by_mask, constant = _dice_parts(p, y, n_images, both)
            torch.addcmul(focal_grad, y, by_mask, out=focal_grad).add_(constant)
            grad[..., part, :, :] = focal_grad
            loss += focal + dice
        ctx.save_for_backward(grad)
        return loss + (2 if both else 1)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * outer[0][..., None, None, None], None, None


def _focal_parts(p: Tensor, y: Tensor, n_pixels: int) -> tuple[Tensor, Tensor]:
    """Give some images' share of the focal loss, `(...)`, and its gradient by p."""
    target = y.clamp(_EPSILON, 1 - _EPSILON)
    slope = 2 * target - 1
    pt = torch.addcmul((1 + _EPSILON) - target, slope, p)
    log_pt = pt.log()
    rest = 1 - pt
    focal = (rest * log_pt).mul_(rest).sum(dim=(-3, -2, -1)) / -n_pixels
    # d/dpt of -(1-pt)^2 log pt = (1-pt) (2 log pt - (1-pt) / pt)
    grad = log_pt.mul_(2).sub_(torch.div(rest, pt, out=pt)).mul_(rest).mul_(slope.div_(n_pixels))
    return focal, grad


def _dice_parts(p: Tensor, y: Tensor, n_images: int, both: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Give some images' share of Dice less 1, `(...)`; its gradient is `by_mask * y + constant`."""
    p_sum = p.sum(dim=(-2, -1), keepdim=True)
    y_sum = y.sum(dim=(-2, -1), keepdim=True)
    overlap = (p * y).sum(dim=(-2, -1), keepdim=True)
    top, bottom = 2 * overlap + _DICE_SMOOTH, p_sum + y_sum + _DICE_SMOOTH
    ratio = top / bottom
    by_mask, constant = -2 / bottom, ratio / bottom
    if both:
        n_here = y.shape[-1] * y.shape[-2]
        top = 2 * (n_here - p_sum - y_sum + overlap) + _DICE_SMOOTH
        bottom = 2 * n_here - p_sum - y_sum + _DICE_SMOOTH
        other = top / bottom
        # p_N = 1 - p_A falls as p_A rises, and its mask is 1 - y
        by_mask, constant = by_mask - 2 / bottom, constant + (2 - other) / bottom
        ratio = ratio + other
    return -ratio.sum(dim=(-3, -2, -1)) / n_images, by_mask / n_images, constant / n_images
