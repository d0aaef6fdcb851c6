"""How a pair of guides is fitted: the one declaration, from the option to the maths.

Needs no torch, so that the command line is quick to explain it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from spg_core.fields import Decay, Paper, Rate, Seed, Weight, check_fields

Sparsity = Literal["relu", "softplus", "topk"]
Dice = Literal["both", "anomaly"]


@dataclass(frozen=True, kw_only=True)
class GuideConfig:
    """Everything a step depends on besides dictionary, tokens and masks. Defaults are `released`.

    The loss is focal + lambda_dice x Dice + beta x (the l1 norms of both guides).
    """

    temperature: Annotated[float, Meta(ge=1e-4, le=1e4)] = 0.07
    """T of the softmax over cosines."""
    sparsity: Sparsity = "relu"
    """relu or softplus, each with an l1 penalty, or topk (Supplement A); softplus has no zeros."""
    topk_guides: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    """Coefficients a guide keeps, k_g, for sparsity topk."""
    beta: Annotated[Weight, Paper(0.01)] = 2.5e-4
    """Weight of each guide's l1 norm, for sparsity relu and softplus."""
    dice: Annotated[Dice, Paper("anomaly")] = "both"
    """both (Dice of p_A and of p_N) or anomaly (Dice of p_A alone)."""
    lambda_dice: Weight = 1.0
    """Weight of Dice beside the focal loss; 0 leaves it out."""
    ema: Decay = 0.999
    """Decay of the average of the coefficients that scoring uses; 0 uses the last ones."""
    learning_rate: Annotated[Rate, Paper(1e-3)] = 1e-2
    """Adam's step size."""
    beta1: Annotated[Decay, Paper(0.9)] = 0.5
    """Adam's decay of the mean gradient."""
    beta2: Decay = 0.999
    """Adam's decay of the mean squared gradient."""
    seed: Seed = 111
    """Seed of the initial coefficients and of the order of images."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a field out of range."""
        check_fields(self)
