"""What `sweep` and `reproduce` can be told; lists are written `2048,4096`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.configs.common import (
    FEW,
    Aupro,
    CacheWords,
    Checked,
    Epochs,
    InputWords,
    Layer,
    Pool,
    Recipe,
    as_words,
)
from pipeline.configs.fitting import FitGuidesConfig, FitSaeConfig, Order, Shots
from spg_core.fields import ARGUMENT, REPEATED, Device, FilePath, Name, Seed
from spg_core.sae_config import Atoms

Positive = Annotated[float, Meta(gt=0, le=1e6)]


@dataclass(frozen=True, kw_only=True)
class SweepConfig(InputWords):
    """Fit and score a grid of configurations."""

    aux: Name = "visa"
    """Auxiliary dataset, by its name in the store."""
    target: Name = "mvtec"
    """Target dataset, by its name in the store."""
    backbone: Name = "dinov3"
    """Backbone whose tokens are used."""
    aux_key: Name | None = None
    """Key of the auxiliary cache, where there are several."""
    target_key: Name | None = None
    """Key of the target's cache, where there are several."""
    layer: Annotated[tuple[Layer, ...], Meta(max_length=1000)] = ()
    """Layers, each with caches of its own and a pass over them: a list such as 2,5,8,11, negative
    numbers from the end, every:3, last:4; the only cached one otherwise."""
    together: Annotated[tuple[Literal["pairs", "all"], ...], Meta(max_length=2)] = ()
    """Also score the mean of the maps of several layers: of all pairs of them, of all, or both, as
    pairs,all."""
    width: Annotated[tuple[Atoms, ...], FEW] = (FitSaeConfig.width,)
    """Atoms in the dictionary, C: a list such as 2048,4096."""
    k: Annotated[tuple[Atoms, ...], FEW] = (FitSaeConfig.k,)
    """Latents a token may use: a list."""
    seed: Annotated[tuple[Seed, ...], FEW] = (FitSaeConfig.seed,)
    """Seeds of both fits: a list; each takes a pass over the tokens of its own."""
    recipe: Annotated[tuple[Recipe, ...], FEW] = (FitSaeConfig.recipe,)
    """Where fields that are not given take their values: a list."""
    order: Annotated[tuple[Order, ...], FEW] = (FitSaeConfig.order,)
    """Whole images a step, or near-iid tokens: a list."""
    vary: Annotated[tuple[Name, ...], REPEATED] = ()
    """Values of any other field of a stage (sae, guides, score), such as guides.beta=1e-4,1e-3 or
    sae.epochs=10. May be repeated."""
    memory_gb: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """GB that SAEs in training may take at a time; a quarter of the memory, half of a GPU
    otherwise."""
    device: Device = "auto"
    """Where the maths runs."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        object.__setattr__(self, "layer", as_words(self.layer))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class DryRunConfig(Checked):
    """Whether it is done at all."""

    dry_run: bool = False
    """Only say which points there are, and what steps, memory, time and disk they take."""


@dataclass(frozen=True, kw_only=True)
class ReproduceSource(Checked):
    """Which part of the paper is made again, and where to."""

    what: Annotated[Literal["table1", "fig2", "fig3", "fig4", "figS1", "references"], ARGUMENT]
    """table1, fig2, fig3, fig4, figS1, or references: SPG beside simpler methods, on every layer
    that is cached."""
    out: FilePath | None = None
    """Also write the table to this .csv, .tex or .parquet file, or the figure to this .pdf, .svg,
    .png, .csv or .parquet file."""


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig(CacheWords):
    """Fit and score what a table or figure of the paper needs."""

    aux: Name = "visa"
    """First dataset, by its name in the store; fits in one direction, is scored in the other."""
    target: Name = "mvtec"
    """Second dataset, by its name in the store."""
    directions: Literal["both", "one"] = "both"
    """both, or one: fitted on --aux and scored on --target alone."""
    backbone: Name = "dinov3"
    """Backbone whose tokens are used."""
    aux_key: Name | None = None
    """Key of the first's cache, where there are several."""
    target_key: Name | None = None
    """Key of the second's cache, where there are several."""
    recipe: Recipe = "released"
    """Where options that are not given take their values, in all stages."""
    width: Atoms = FitSaeConfig.width
    """Atoms in the dictionary, C."""
    k: Atoms = FitSaeConfig.k
    """Latents a token may use."""
    sae_epochs: Epochs = FitSaeConfig.epochs
    """Passes of fit-sae over the tokens."""
    guide_epochs: Epochs = FitGuidesConfig.epochs
    """Passes of fit-guides over the images."""
    seed: Seed = FitSaeConfig.seed
    """Seed of both fits."""
    aupro: Aupro = "clip200"
    """clip200 (the released definition, as published) or exact."""
    device: Device = "auto"
    """Where the maths runs."""


@dataclass(frozen=True, kw_only=True)
class FigureConfig(Checked):
    """What the figures of the paper vary."""

    widths: Annotated[tuple[Atoms, ...], FEW] = (2048, 3072, 4096, 6144, 8192)
    """C of fig2: a list."""
    ks: Annotated[tuple[Atoms, ...], FEW] = (8, 16, 32, 64, 128)
    """k of fig2: a list."""
    taus: Annotated[tuple[Positive, ...], FEW] = (
        *(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
        *(10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0),
    )
    """Pooling temperatures of fig3: a list."""
    pools: Annotated[tuple[Pool, ...], FEW] = ("max", "mean")
    """Poolings that fig3 draws across, beside those by temperature: a list."""
    backbones: Annotated[tuple[Name, ...], FEW] = ("dinov3", "dinov2", "siglip", "openclip")
    """Backbones of fig4: a list."""
    guide_ks: Annotated[tuple[Atoms, ...], FEW] = (8, 16, 32, 64, 128, 256, 512, 1024)
    """Coefficients a guide keeps, k_g of figS1: a list."""
    shots: Annotated[tuple[Shots, ...], FEW] = (1, 2, 4)
    """Normal images a category of the memories of references: a list."""
    seeds: Annotated[tuple[Seed, ...], Meta(max_length=1000)] = ()
    """Seeds of all fits of a figure or of references, their mean and spread are shown: a list;
    that of --seed alone otherwise."""
