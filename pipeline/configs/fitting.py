"""What `fit-sae`, `fit-guides` and `fit-memory` can be told besides what the maths is."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.configs.common import CacheWords, Checked, Epochs, Images, Named, Recipe
from spg_core.errors import ConfigError, OptionsDisagree
from spg_core.fields import Device, FilePath, Name, Paper, Seed
from spg_core.guide_config import GuideConfig
from spg_core.sae_config import SaeConfig

Order = Literal["images", "tokens"]
Shots = Annotated[int, Meta(ge=0, le=100_000)]
"""Images a category; 0 means all."""


@dataclass(frozen=True, kw_only=True)
class TokensSource(Checked):
    """Whose tokens are used."""

    dataset: Name
    """Auxiliary dataset, by its name in the store."""
    backbone: Name
    """Backbone whose tokens are used."""
    key: Name | None = None
    """Key of the cache, or its start, where there are several."""


@dataclass(frozen=True, kw_only=True)
class FitSaeSource(Named, CacheWords, TokensSource):
    """Whose tokens an SAE is trained on."""


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
class FitGuidesSource(CacheWords, Named):
    """Which SAE guides are fitted over."""

    sae: Name | None = None
    """SAE: id, name, start of an id, path, or latest."""
    sae_file: FilePath | None = None
    """SAE of another program in place of it: a .safetensors file, or the folder of sae-lens."""
    dataset: Name | None = None
    """Auxiliary dataset, by its name in the store; of an SAE file, as an SAE has its own."""
    backbone: Name | None = None
    """Backbone whose tokens are used; of an SAE file."""
    key: Name | None = None
    """Key of the cache, or its start, where there are several; of an SAE file."""

    def check(self) -> None:
        """Raises: OptionsDisagree where what is given does not tell one SAE and its tokens."""
        if (self.sae is None) == (self.sae_file is None):
            raise OptionsDisagree("give --sae, or --sae-file with --dataset and --backbone")
        tokens = (self.dataset, self.backbone)
        words = (self.key, self.layer, self.image_size, self.final_norm)
        if self.sae is not None and (any(tokens) or any(one is not None for one in words)):
            raise OptionsDisagree("--sae has its dataset, backbone and key; leave those out")
        if self.sae is None and not all(tokens):
            raise OptionsDisagree("--sae-file needs --dataset and --backbone: whose tokens")


@dataclass(frozen=True, kw_only=True)
class FitGuidesConfig(GuideConfig):
    """Learn two sparse guides over a trained dictionary."""

    on: Literal["patches", "cls"] = "patches"
    """What is told apart: patches by masks, or whole images by the label of their CLS token."""
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


@dataclass(frozen=True, kw_only=True)
class FitMemorySource(CacheWords, Named):
    """Whose normal tokens are kept."""

    dataset: Name
    """Dataset that holds normal images of the train split, by its name in the store."""
    backbone: Name | None = None
    """Backbone whose tokens are kept; the only one of the dataset otherwise."""
    key: Name | None = None
    """Key of the cache, or its start; the only one with normal train images otherwise."""


@dataclass(frozen=True, kw_only=True)
class FitMemoryConfig(Checked):
    """Keep the tokens of a few normal images of each category."""

    shots: Shots = 4
    """Normal images a category; 0 takes all."""
    coreset: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """Keep this share of a category's tokens, or above 1 this number; all otherwise."""
    seed: Seed = 111
    """Seed of which images are taken; fewer shots are part of more."""
    device: Device = "auto"
    """Where a coreset is chosen."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        super().__post_init__()
        if self.coreset is not None and self.coreset > 1 and not self.coreset.is_integer():
            raise ConfigError(
                f"--coreset is {self.coreset}; it must be a share, at most 1, or a whole number"
            )

    def n_kept(self, n_tokens: int) -> int:
        """Give how many of a category's tokens are kept."""
        if self.coreset is None:
            return n_tokens
        if self.coreset > 1:
            return min(n_tokens, int(self.coreset))
        return max(1, int(n_tokens * self.coreset))
