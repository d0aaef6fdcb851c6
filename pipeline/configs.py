"""What every stage can be told: one frozen dataclass a stage, the only home of defaults.

The defaults are the `released` recipe (github.com/riips/SPG at 864fca7), which produced the
published tables; `Paper` beside a field says how the paper's text differs. A config is saved beside
each output. Imports nothing heavy, so that `spg-pipe --help` is quick.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from manifests.problems import LAYOUTS, Layout
from spg_core.errors import ConfigError
from spg_core.fields import ARGUMENT, Count, Device, FilePath, Name, Paper, check_fields
from spg_core.guide_config import GuideConfig
from spg_core.nearest import near
from spg_core.sae_config import SaeConfig

Recipe = Literal["released", "paper"]
Coefficients = Literal["ema", "raw"]
Aupro = Literal["exact", "clip200"]
TableFile = Annotated[
    FilePath, Meta(pattern=r"\.(csv|tex|parquet)$", description="a .csv, .tex or .parquet file")
]
OnnxFile = Annotated[FilePath, Meta(pattern=r"\.onnx$", description="a .onnx file")]


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Which store a command works on."""

    store: FilePath = "./spg-store"
    """Folder or URL (s3://bucket/prefix) of the store."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Turn the images of a dataset into a token cache."""

    backbone: Name
    """dinov3, dinov2, siglip, openclip, gabor, timm:MODEL or open_clip:MODEL/TAG."""
    dataset: Layout
    """Layout of the images, docs/formats.md; meta is an AnomalyCLIP meta.json."""
    root: FilePath
    """Folder that holds the images."""
    name: Name | None = None
    """Name of the dataset in the store; the layout's otherwise."""
    split: Literal["test", "train", "all"] = "test"
    """Which images; guides need the test split, which holds the defects."""
    normal: tuple[Name, ...] = ()
    """Names of the folders or labels that are normal, if not good, ok, ..; none if no folder is."""
    masks: FilePath | None = None
    """Name of the folder of masks, where it is another than the layout's; none if there is none."""
    list_file: FilePath | None = None
    """The list, or a folder of lists, of layouts that have one, if it is not where they say."""
    limit: Count | None = None
    """Only the first so many images a category and label."""
    skip_broken: bool = False
    """Leave out images and masks that cannot be decoded, and name them."""
    follow_links: bool = False
    """Read what links lead to outside the folder of the images."""
    image_size: Annotated[int, Meta(ge=1, le=16384)] | None = None
    """Side of the square model input in pixels; the backbone's otherwise."""
    weights: FilePath | None = None
    """Weights file (safetensors or torch); the hub's local cache, then the hub otherwise."""
    layer: Annotated[int, Meta(ge=0, le=1000)] | None = None
    """Block whose tokens are stored, from 0; the last otherwise."""
    final_norm: bool | None = None
    """Pass tokens through the model's final norm; the backbone's choice otherwise."""
    resize_filter: Literal["bilinear", "bicubic"] | None = None
    """How images are resized, antialiased; the backbone's choice otherwise."""
    compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Numbers the model computes in; float32 on a CPU and bfloat16 on a GPU otherwise."""
    exif: bool = False
    """Rotate images as their EXIF tag says."""
    thumbnails: bool = False
    """Keep a small JPEG of each model input in the manifest, so that reports show pictures."""
    device: Device = "auto"
    """Where the model runs."""
    batch_size: Annotated[int, Meta(ge=1, le=4096)] = 16
    """Images a forward pass; a batch never crosses a shard's border."""
    decoders: Annotated[int, Meta(ge=0, le=256)] = 2
    """Processes that decode images ahead of the model; 0 decodes in this one."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        if self.dataset not in LAYOUTS:
            raise ConfigError(
                f"--dataset names how the images are laid out: {', '.join(LAYOUTS)}, got "
                f"{self.dataset!r:.60}{near(self.dataset, LAYOUTS)}; its own name is --name"
            )
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where the work of a command is done; nothing here changes what comes out."""

    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Processes of this machine that share the work; 0 uses this one alone."""
    scheduler: Name | None = None
    """Address of a running Dask scheduler whose workers do it, tcp://HOST:8786."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        check_fields(self)

    @property
    def is_here(self) -> bool:
        """Whether the work is done in this process."""
        return self.workers == 0 and self.scheduler is None


Epochs = Annotated[int, Meta(ge=1, le=100_000)]
Images = Annotated[int, Meta(ge=1, le=100_000)]


@dataclass(frozen=True, kw_only=True)
class FitSaeSource:
    """Whose tokens an SAE is trained on."""

    dataset: Name
    """Auxiliary dataset, by its name in the store."""
    backbone: Name
    """Backbone whose tokens are used."""
    key: Name | None = None
    """Key of the cache, or its start, where there are several."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for an empty name."""
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class FitGuidesSource:
    """Which SAE guides are fitted over."""

    sae: Name
    """SAE: id, start of an id, path, or latest."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for an empty name."""
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class FitSaeConfig(SaeConfig):
    """Train a sparse autoencoder on cached tokens."""

    recipe: Recipe = "released"
    """released or paper: where options that are not given take their values."""
    epochs: Epochs = 50
    """Passes over the auxiliary tokens."""
    order: Literal["images", "tokens"] = "images"
    """images (whole images a step, the recipes') or tokens (near-iid tokens, same batch size)."""
    images_per_step: Images = 16
    """Images a step; with order tokens, as many tokens as these images have."""
    device: Device = "auto"
    """Where to train."""


@dataclass(frozen=True, kw_only=True)
class FitGuidesConfig(GuideConfig):
    """Learn two sparse guides over a trained dictionary."""

    recipe: Recipe = "released"
    """released or paper: where options that are not given take their values."""
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
class ScoreConfig:
    """How cached or unseen images are scored with fitted guides."""

    tau: Annotated[float, Meta(ge=0, description="0 to 1e+06 or inf")] = 0.0
    """Temperature of pooling a map into an image score; 0 is the maximum, inf the mean."""
    sigma: Annotated[float, Meta(ge=0, le=1000), Paper(0.0)] = 4.0
    """Gaussian on the map, in pixels of the model input; 0 leaves it out."""
    coefficients: Coefficients = "ema"
    """Which of the fitted coefficients: their average, or the last step's."""
    aupro: Aupro = "exact"
    """exact (every threshold), or clip200 (the released 200-step definition)."""
    device: Device = "auto"
    """Where the maths runs."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        check_fields(self)
        if 1e6 < self.tau < math.inf:
            raise ConfigError(f"--tau is {self.tau}; it must be a number, 0 to 1e+06 or inf")


@dataclass(frozen=True, kw_only=True)
class GuidesSource:
    """Which guides are meant."""

    guides: Name
    """Guides: id, start of an id, path, or latest."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class ScoreSource(GuidesSource):
    """What is scored, and what is kept besides the metrics."""

    dataset: Name
    """Target dataset, by its name in the store."""
    key: Name | None = None
    """Key of the cache, or its start, where there are several."""
    recipe: Recipe | None = None
    """Where options that are not given take their values; the guides' recipe otherwise."""
    save_maps: bool = False
    """Keep the maps, maps.zarr."""
    report: bool = False
    """Write report.html."""


@dataclass(frozen=True, kw_only=True)
class TableSource:
    """Which scores are laid out, and where to."""

    scores: Name
    """Scores: id, start of an id, path, or latest."""
    out: TableFile | None = None
    """Also write the table to this file."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class AtomsSource(GuidesSource):
    """Whose atoms are shown, and where to."""

    out: FilePath | None = None
    """Folder or URL of the files; guides/ID/atoms otherwise."""


@dataclass(frozen=True, kw_only=True)
class AtomsConfig:
    """Show what the active atoms of fitted guides respond to."""

    guide: Literal["anomaly", "normal", "both"] = "both"
    """Whose atoms."""
    top: Annotated[int, Meta(ge=1, le=1000)] = 16
    """Atoms a guide, those with the largest coefficients."""
    patches: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Patches an atom, those with the largest activations."""
    one_per_image: bool = True
    """Take at most one patch of an image for an atom."""
    coefficients: Coefficients = "ema"
    """Which of the fitted coefficients rank the atoms: their average, or the last step's."""
    device: Device = "auto"
    """Where the maths runs."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class CalibrateSource(GuidesSource):
    """Whose threshold is chosen, and how."""

    fpr: Annotated[float, Meta(ge=0, lt=1)] | None = None
    """Share of normal auxiliary images to flag; the highest F1 otherwise."""


@dataclass(frozen=True, kw_only=True)
class ExportSource(GuidesSource):
    """Which detector is written to a file, and where to."""

    out: OnnxFile
    """Path of the .onnx file; its .json is written beside."""
    weights: FilePath | None = None
    """Weights file of the guides' backbone; the hub's otherwise."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Fit and score a grid of configurations; lists are written `2048,4096`."""

    aux: str = "visa"
    """Auxiliary dataset, by its name in the store."""
    target: str = "mvtec"
    """Target dataset."""
    backbone: str = "dinov3"
    """Backbone whose tokens are used."""
    aux_key: str | None = None
    """Key of the auxiliary cache, where there are several."""
    target_key: str | None = None
    """Key of the target's cache, where there are several."""
    width: str = str(FitSaeConfig.width)
    """Atoms in the dictionary, C."""
    k: str = str(FitSaeConfig.k)
    """Latents a token may use."""
    seed: str = str(FitSaeConfig.seed)
    """Seeds of both fits; each has batches, and so a pass over the tokens, of its own."""
    recipe: str = FitSaeConfig.recipe
    """released, paper."""
    order: str = FitSaeConfig.order
    """images, tokens."""
    vary: Sequence[str] | None = None
    """Values of any other field: `guides.beta=1e-4,1e-3`; stages are sae, guides and score."""
    memory_gb: float | None = None
    """What SAEs in training may take at a time; None is a quarter of the memory, half of a GPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Fit and score what a table or figure of the paper needs."""

    aux: str = "visa"
    """First dataset, by its name in the store; fits in one direction, is scored in the other."""
    target: str = "mvtec"
    """Second dataset."""
    backbone: str = "dinov3"
    """Backbone whose tokens are used."""
    aux_key: str | None = None
    """Key of the first dataset's cache, where there are several."""
    target_key: str | None = None
    """Key of the second's."""
    recipe: str = "released"
    """released or paper, for all stages."""
    width: int = FitSaeConfig.width
    """Atoms in the dictionary, C."""
    k: int = FitSaeConfig.k
    """Latents a token may use."""
    sae_epochs: int = FitSaeConfig.epochs
    """Passes of fit-sae over the tokens."""
    guide_epochs: int = FitGuidesConfig.epochs
    """Passes of fit-guides over the images."""
    seed: int = FitSaeConfig.seed
    """Seed of both fits."""
    aupro: str = "clip200"
    """clip200 (the released definition, as published) or exact."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True, kw_only=True)
class FigureConfig:
    """What the figures of the paper vary; lists are written `2048,4096`."""

    widths: str = "2048,3072,4096,6144,8192"
    """C of Fig. 2."""
    ks: str = "8,16,32,64,128"
    """k of Fig. 2."""
    taus: str = "0.001,0.003,0.01,0.03,0.1,0.3,1,3,10,30,100"
    """Pooling temperatures of Fig. 3."""
    backbones: str = "dinov3,dinov2,siglip,openclip"
    """Backbones of Fig. 4."""
    guide_ks: str = "8,16,32,64,128,256,512,1024"
    """Coefficients a TopK guide keeps, k_g of Fig. S1."""


@dataclass(frozen=True, kw_only=True)
class PredictSource(GuidesSource):
    """Which images are judged, and with what."""

    images: Annotated[tuple[FilePath, ...], Meta(min_length=1), ARGUMENT]
    """Images, folders or quoted globs."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Judge unseen images with fitted guides; how to score is a `ScoreConfig`."""

    weights: FilePath | None = None
    """Weights file of the guides' backbone; the hub's otherwise."""
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Score from which an image is anomalous; the calibrated one otherwise."""
    out: FilePath | None = None
    """Folder for a heatmap and an overlay of each image."""
    batch_size: Annotated[int, Meta(ge=1, le=4096)] = 8
    """Images a forward pass."""
    decoders: Annotated[int, Meta(ge=1, le=256)] = 2
    """Threads that decode images and write pictures beside the model."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Where the demonstration puts what it makes."""

    folder: FilePath = "spg-demo"
    """Folder for the sample, the store and the report."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        check_fields(self)


def at_least(smallest: float, **numbers: float) -> None:
    """Refuse numbers below `smallest`, by the name of their option. Raises: ConfigError."""
    for name, number in numbers.items():
        if not number >= smallest:
            raise ConfigError(
                f"--{name.replace('_', '-')} is {number}; it must be {smallest} or more"
            )


def as_document(config: Any) -> dict[str, Any]:
    """Give a config as JSON-ready fields, to be saved beside what it made; infinity as `inf`."""
    return {
        name: str(value) if isinstance(value, float) and math.isinf(value) else value
        for name, value in dataclasses.asdict(config).items()
    }
