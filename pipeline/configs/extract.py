"""What `extract` can be told."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from manifests.problems import LAYOUTS, Layout
from pipeline.configs.common import BatchSize, Checked
from spg_core.errors import ConfigError
from spg_core.fields import Count, Device, FilePath, Name
from spg_core.nearest import near


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(Checked):
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
    decoders: Annotated[int, Meta(ge=0, le=256)] = 2
    """Threads that decode images ahead of the model; 0 decodes each when the model wants it."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        if self.dataset not in LAYOUTS:
            raise ConfigError(
                f"--dataset names how the images are laid out: {', '.join(LAYOUTS)}, got "
                f"{self.dataset!r:.60}{near(self.dataset, LAYOUTS)}; its own name is --name"
            )
        super().__post_init__()
