"""Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1) as a pure function of tensors.

The number of steps is a tensor, so a compiled graph holds for every step. `torch.optim` has the
same formula; a test compares.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ADAM_EPS = 1e-8
"""Guard against division by zero; both recipes keep torch's."""


@dataclass(frozen=True)
class Rates:
    """Adam's numbers; as tensors, a graph that was compiled once serves all of them."""

    learning_rate: float | Tensor
    """Step size; 0-d float64 where it is a tensor, as all three."""
    beta1: float | Tensor
    """Decay of the mean, in [0, 1)."""
    beta2: float | Tensor
    """Decay of the mean square, in [0, 1)."""

    def on(self, device: torch.device) -> "Rates":
        """Give them as tensors on a device."""
        every = (self.learning_rate, self.beta1, self.beta2)
        return Rates(*(torch.tensor(one, dtype=torch.float64, device=device) for one in every))


class Moved(NamedTuple):
    """What a step makes of weights and moments."""

    weights: Tensor
    mean: Tensor
    square: Tensor


def adam_step(
    weights: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    n_steps: Tensor,
    rates: Rates,
    eps: float,
) -> Moved:
    """Give weights and moments after one step; the arguments stay as they are.

    Args:
        weights: any shape.
        gradient: of that shape.
        mean: running mean of the gradients, of that shape.
        square: running mean of their squares, of that shape.
        n_steps: steps taken, this one included; 0-d float64, so that `1 - beta ** n` keeps its
            digits.
        rates: step size, decays of `mean` and of `square`.
        eps: guard against division by zero.
    """
    learning_rate, beta1, beta2 = rates.learning_rate, rates.beta1, rates.beta2
    share = 1 - beta1
    mean = torch.lerp(mean, gradient, share.to(mean.dtype) if isinstance(share, Tensor) else share)
    square = square * beta2 + gradient * gradient * (1 - beta2)
    # beta ** n by the device: no number leaves it, none is baked into a graph
    first = 1 - torch.pow(beta1, n_steps)
    second = 1 - torch.pow(beta2, n_steps)
    length = (square / second).sqrt() + eps
    return Moved(weights - mean / length * (learning_rate / first), mean, square)
