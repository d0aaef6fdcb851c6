"""What `extract` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from manifests.problems import LAYOUTS, Layout
from pipeline.configs.common import FEW, BatchSize, Checked, Layer, as_words
from spg_core.errors import ConfigError
from spg_core.fields import REPEATED, Count, Device, FilePath, Name
from spg_core.nearest import near


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(Checked):
    """Turn the images of a dataset into a token cache."""

    backbone: Annotated[tuple[Name, ...], FEW]
    """dinov3, dinov2, siglip, openclip, gabor, timm:MODEL or open_clip:MODEL/TAG; a list decodes
    each image once for all."""
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
    weights: Annotated[tuple[FilePath, ...], REPEATED] = ()
    """Weights file (safetensors or torch), NAME=FILE where there are several backbones; the hub's
    local cache, then the hub otherwise. May be repeated."""
    layer: Annotated[tuple[Layer, ...], Meta(max_length=1000)] = ()
    """Blocks whose tokens are stored, from 0, a cache each from one forward pass: a list such as
    5,11,17,23, negative numbers from the end, every:6, last:4; the last block otherwise."""
    final_norm: bool | None = None
    """Pass tokens through the model's final norm; the backbone's choice otherwise."""
    resize_filter: Literal["bilinear", "bicubic"] | None = None
    """How images are resized, antialiased; the backbone's choice otherwise."""
    compute_dtype: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    """Numbers the model computes in; all but float32 are for GPUs, faster and less exact."""
    exif: bool = False
    """Rotate images as their EXIF tag says."""
    thumbnails: bool = False
    """Keep a small JPEG of each model input in the manifest, so that reports show pictures."""
    device: Device = "auto"
    """Where the model runs."""
    batch_size: BatchSize = 16
    """Images a forward pass; a batch never crosses a shard's border."""
    decoders: Annotated[int, Meta(ge=0, le=256)] | None = None
    """Threads that decode images ahead of the model; 0 decodes each when the model wants it; 2 for
    a model on the CPU, all cores but one for one on a GPU otherwise."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range, or weights of no backbone."""
        object.__setattr__(self, "backbone", as_words(self.backbone))
        object.__setattr__(self, "layer", as_words(self.layer))
        if isinstance(self.weights, str):
            object.__setattr__(self, "weights", (self.weights,))
        if self.dataset not in LAYOUTS:
            raise ConfigError(
                f"--dataset names how the images are laid out: {', '.join(LAYOUTS)}, got "
                f"{self.dataset!r:.60}{near(self.dataset, LAYOUTS)}; its own name is --name"
            )
        super().__post_init__()
        self.weights_of(self.backbone[0])

    def weights_of(self, backbone: str) -> Path | None:
        """Give the weights file of one of the backbones; None leaves it to the hub.

        Raises: ConfigError for weights that are none of them's.
        """
        if len(self.backbone) == 1 and len(self.weights) == 1:
            return Path(self.weights[0].removeprefix(f"{backbone}=")).expanduser()
        named = dict.fromkeys(self.backbone, "")
        for text in self.weights:
            name, _, file = text.partition("=")
            if not file or named.get(name) != "":
                raise ConfigError(
                    f"--weights {text}: with {', '.join(self.backbone)} give NAME=FILE, once for "
                    "each of them that does not take the hub's"
                )
            named[name] = file
        return Path(named[backbone]).expanduser() if named[backbone] else None
