"""How the maps of several parts become one: put on one scale, then their mean or their maximum.

A part's values v, in [0, 1], become sigmoid(slope * v + shift): monotone, so that no part's own
ranking changes. The mean may have weights. They are learned as those of a mixture: the part i says
that a pixel is anomalous with probability v_i, and the weighted mean is to make the labels as
likely as can be. That is concave in the weights, so its maximum, found by EM, depends on no start.

Axes: K parts; n labelled pixels or images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_STEPS = 1000
_SETTLED = 1e-7
_SMALLEST = 1e-6  # a part that is sure and wrong makes labels unlikely, not impossible


@dataclass(frozen=True)
class Scale:
    """What puts values on the scale of all: sigmoid(slope * v + shift)."""

    slope: float
    shift: float

    def __call__(self, values: Tensor) -> Tensor:
        """Give values of any shape in [0, 1]."""
        return torch.sigmoid(self.slope * values + self.shift)


@dataclass(frozen=True)
class Meeting:
    """How parts meet, in their order."""

    how: Literal["mean", "max"] = "mean"
    weights: tuple[float, ...] = (1.0,)
    """Of the mean, each at least 0, 1 in all."""
    scales: tuple[Scale | None, ...] = (None,)
    """None leaves a part's values as they are."""

    def __call__(self, values: Sequence[Tensor]) -> Tensor:
        """Give what the values of all parts, each in [0, 1] and of one shape, come to."""
        [first, *rest] = self.scaled(values)
        if not rest:
            return first
        if self.how == "max":
            return torch.stack([first, *rest]).amax(0)
        met = first * self.weights[0]
        for weight, one in zip(self.weights[1:], rest, strict=True):
            met = met + weight * one
        return met.clamp(0, 1)

    def scaled(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Give the values of each part on the scale of all."""
        pairs = zip(self.scales, values, strict=True)
        return [one if scale is None else scale(one) for scale, one in pairs]

    def only(self, chosen: Sequence[int]) -> "Meeting":
        """Give how some of the parts meet by themselves."""
        weights = [self.weights[at] for at in chosen]
        total = sum(weights)
        even = [1 / len(weights)] * len(weights)
        kept = [one / total for one in weights] if total > 0 else even
        return Meeting(self.how, tuple(kept), tuple(self.scales[at] for at in chosen))


def mixture_weights(values: Tensor, labels: Tensor) -> Tensor:
    """Learn the weights `(K,)`, at least 0 and 1 in all, with which values explain labels best.

    Normal and anomalous ones count the same in all, however many there are.

    Args:
        values: `(K, n)` in [0, 1].
        labels: `(n,)` bool, both classes present.
    """
    chances = torch.where(labels, values.double(), 1 - values.double()).clamp_min(_SMALLEST)
    counts = torch.stack([(~labels).sum(), labels.sum()])
    shares = 0.5 / counts[labels.long()].double()
    weights = torch.full((len(values),), 1 / len(values), dtype=torch.float64)
    for _ in range(_STEPS):
        likely = weights[:, None] * chances
        updated = (likely / likely.sum(0) * shares).sum(1)
        if bool((updated - weights).abs().max() < _SETTLED):
            return updated
        weights = updated
    return weights
