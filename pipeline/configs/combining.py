"""What `combine` can be told, and `score` of several parts."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.configs.common import Checked, Coefficients, Named
from spg_core.fields import Device, Name

Combine = Literal["mean", "max", "learned"]
Several = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]


@dataclass(frozen=True, kw_only=True)
class CombineSource(Named):
    """Which parts are combined."""

    guides: Several
    """Guides and memories, two or more: ids, names, starts of ids, or paths, in a list such as
    A,B,C; maps have the input size of the first."""


@dataclass(frozen=True, kw_only=True)
class CombineConfig(Checked):
    """Let several parts, each on a layer or a backbone of its own, make one map."""

    combine: Combine = "mean"
    """How the maps of the parts meet: their mean, their max, or a mean with weights learned on the
    masks of the auxiliary dataset."""
    scale: Literal["auto", "none", "logistic"] = "auto"
    """Put each part's values on one scale, by a logistic fit on the auxiliary dataset; auto does
    so where the parts are of unlike kinds."""
    coefficients: Coefficients = "ema"
    """Which of the guides' coefficients weights and scales are fitted with."""
    device: Device = "auto"
    """Where the maths runs."""
