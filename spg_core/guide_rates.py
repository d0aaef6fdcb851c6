"""What of a guide's config changes no graph: its numbers, which are tensors in a compiled step."""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from spg_core.adam import Rates
from spg_core.guide_config import GuideConfig


@dataclass(frozen=True)
class GuideNumbers:
    """The numbers of a guide's loss and update; beside Adam's, 0-d float32 where tensors."""

    temperature: float | Tensor
    beta: float | Tensor
    lambda_dice: float | Tensor
    new_share: float | Tensor
    """Of the last coefficients in their average."""
    adam: Rates


def numbers_of(config: GuideConfig, device: torch.device | None = None) -> GuideNumbers:
    """Give the numbers that a config says, as tensors where a device is named."""

    def given(number: float) -> float | Tensor:
        return number if device is None else torch.tensor(number, device=device)

    adam = Rates(config.learning_rate, config.beta1, config.beta2)
    return GuideNumbers(
        temperature=given(config.temperature),
        beta=given(config.beta),
        lambda_dice=given(config.lambda_dice),
        new_share=given(1 - config.ema),
        adam=adam if device is None else adam.on(device),
    )


@cache  # graphs are told apart by the objects they were made for
def graph_of(config: GuideConfig) -> GuideConfig:
    """Give what of a config is baked into a compiled step: all but its numbers and the seed.

    Configs that give the same share their graphs.
    """
    loss = replace(config, temperature=1.0, beta=0.0, lambda_dice=1.0, seed=0)
    return replace(loss, learning_rate=1.0, beta1=0.5, beta2=0.5, ema=0.5)
