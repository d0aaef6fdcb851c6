"""Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1) as a pure function of tensors.

The number of steps is a tensor, so a compiled graph holds for every step. `torch.optim` has the
same formula; a test compares.
"""

from typing import NamedTuple

import torch
from torch import Tensor

ADAM_EPS = 1e-8
"""Guard against division by zero; both recipes keep torch's."""


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
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
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
        learning_rate: step size.
        beta1: decay of `mean`, in [0, 1).
        beta2: decay of `square`, in [0, 1).
        eps: guard against division by zero.
    """
    mean = torch.lerp(mean, gradient, 1 - beta1)
    square = square * beta2 + gradient * gradient * (1 - beta2)
    # beta ** n by the device: no number leaves it, none is baked into a graph
    first = 1 - torch.pow(beta1, n_steps)
    second = 1 - torch.pow(beta2, n_steps)
    length = (square / second).sqrt() + eps
    return Moved(weights - mean / length * (learning_rate / first), mean, square)
