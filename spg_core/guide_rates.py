"""What of a guide's config changes no graph: rates and decays, tensors in a compiled step."""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from spg_core.adam import Rates
from spg_core.guide_config import GuideConfig


@dataclass(frozen=True)
class GuideRates:
    """The numbers of a guide's update."""

    adam: Rates
    new_share: float | Tensor
    """Of the last coefficients in their average; 0-d float32 where it is a tensor."""

    def on(self, device: torch.device) -> "GuideRates":
        """Give them as tensors on a device."""
        return GuideRates(self.adam.on(device), torch.tensor(self.new_share, device=device))


def rates_of(config: GuideConfig, device: torch.device | None = None) -> GuideRates:
    """Give the numbers that a config says, as tensors where a device is named."""
    rates = GuideRates(Rates(config.learning_rate, config.beta1, config.beta2), 1 - config.ema)
    return rates if device is None else rates.on(device)


@cache  # graphs are told apart by the objects they were made for
def graph_of(config: GuideConfig) -> GuideConfig:
    """Give what of a config is baked into a compiled step: all but those numbers and the seed.

    Configs that give the same share their graphs.
    """
    return replace(config, learning_rate=1.0, beta1=0.5, beta2=0.5, ema=0.5, seed=0)
