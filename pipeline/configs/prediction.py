"""What `calibrate`, `predict` and `export` can be told besides how to score."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.configs.common import BatchSize, Checked
from pipeline.configs.scoring import GuidesSource
from spg_core.errors import OptionsDisagree
from spg_core.fields import ARGUMENT, FilePath, Name


@dataclass(frozen=True, kw_only=True)
class CalibrateSource(GuidesSource):
    """Whose threshold is chosen, and how."""

    fpr: Annotated[float, Meta(ge=0, lt=1)] | None = None
    """Share of normal auxiliary images to flag; the highest F1 otherwise."""


@dataclass(frozen=True, kw_only=True)
class PredictSource(GuidesSource):
    """Which images are judged, and with what."""

    images: Annotated[tuple[FilePath, ...], Meta(min_length=1), ARGUMENT]
    """Images, folders or quoted globs."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Checked):
    """Judge unseen images with fitted guides; how to score is a `ScoreConfig`."""

    weights: FilePath | None = None
    """Weights file of the guides' backbone; the hub's otherwise."""
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Score from which an image is anomalous; the calibrated one otherwise."""
    category: Name | None = None
    """Category of the images, whose memory is asked; the only one of a memory otherwise."""
    out: FilePath | None = None
    """Folder for a heatmap and an overlay of each image."""
    batch_size: BatchSize = 8
    """Images a forward pass."""
    decoders: Annotated[int, Meta(ge=1, le=256)] = 2
    """Threads that decode images and write pictures beside the model."""


@dataclass(frozen=True, kw_only=True)
class ExportSource(Checked):
    """What is written to a file, and where to."""

    format: Literal["onnx", "saelens"] = "onnx"
    """onnx (a detector as one file), or saelens (an SAE as a folder that sae-lens reads)."""
    guides: Name | None = None
    """Guides of the detector: id, name, start of an id, path, or latest."""
    sae: Name | None = None
    """SAE for sae-lens: id, name, start of an id, path, or latest."""
    out: FilePath
    """Path of the .onnx file, whose .json is written beside; or the folder for sae-lens."""
    weights: FilePath | None = None
    """Weights file of the guides' backbone; the hub's otherwise."""

    def check(self) -> None:
        """Raises: OptionsDisagree where the format is of something else than what is given."""
        wanted = "guides" if self.format == "onnx" else "sae"
        if (self.guides is None) == (wanted == "guides") or (self.sae is None) == (wanted == "sae"):
            raise OptionsDisagree(f"--format {self.format} takes --{wanted}, and not the other")
        if self.format == "onnx" and not self.out.endswith(".onnx"):
            raise OptionsDisagree(f"--out is {self.out!r}; --format onnx takes a .onnx file")
