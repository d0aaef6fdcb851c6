"""What `fit-sae` and `fit-guides` can be told besides what the maths is."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.configs.common import Epochs, Images, Named, Recipe
from spg_core.fields import Device, Name, Paper
from spg_core.guide_config import GuideConfig
from spg_core.sae_config import SaeConfig

Order = Literal["images", "tokens"]


@dataclass(frozen=True, kw_only=True)
class FitSaeSource(Named):
    """Whose tokens an SAE is trained on."""

    dataset: Name
    """Auxiliary dataset, by its name in the store."""
    backbone: Name
    """Backbone whose tokens are used."""
    key: Name | None = None
    """Key of the cache, or its start, where there are several."""


@dataclass(frozen=True, kw_only=True)
class FitSaeConfig(SaeConfig):
    """Train a sparse autoencoder on cached tokens."""

    recipe: Recipe = "released"
    """Where options that are not given take their values."""
    epochs: Epochs = 50
    """Passes over the auxiliary tokens."""
    order: Order = "images"
    """images (whole images a step, the recipes') or tokens (near-iid tokens, same batch size)."""
    images_per_step: Images = 16
    """Images a step; with order tokens, as many tokens as these images have."""
    device: Device = "auto"
    """Where to train."""


@dataclass(frozen=True, kw_only=True)
class FitGuidesSource(Named):
    """Which SAE guides are fitted over."""

    sae: Name
    """SAE: id, name, start of an id, path, or latest."""


@dataclass(frozen=True, kw_only=True)
class FitGuidesConfig(GuideConfig):
    """Learn two sparse guides over a trained dictionary."""

    recipe: Recipe = "released"
    """Where options that are not given take their values."""
    epochs: Epochs = 15
    """Passes over the auxiliary images."""
    images_per_step: Annotated[Images, Paper(16)] = 8
    """Images a step."""
    mask_dead: Annotated[bool, Paper(False)] = True
    """Hold atoms never active over the auxiliary set at 0."""
    dictionary: Literal["sae", "pca", "random", "none"] = "sae"
    """sae, or a control without it: pca, random, or none (free vectors, neither ReLU nor l1)."""
    device: Device = "auto"
    """Where to train."""
