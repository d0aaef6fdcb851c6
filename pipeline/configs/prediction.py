"""What `calibrate`, `predict` and `export` can be told besides how to score."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.configs.common import ArtifactName, BatchSize, Checked
from pipeline.configs.scoring import GuidesSource
from spg_core.errors import OptionsDisagree
from spg_core.fields import ARGUMENT, REPEATED, FilePath, Name

Weights = Annotated[tuple[FilePath, ...], REPEATED]


@dataclass(frozen=True, kw_only=True)
class CalibrateSource(GuidesSource):
    """Whose threshold is chosen, and on which images: own, a cached dataset's, or auxiliary."""

    good: Annotated[tuple[FilePath, ...], REPEATED] = ()
    """Image, folder or quoted glob of known good parts, judged as predict would; repeatable."""
    bad: Annotated[tuple[FilePath, ...], REPEATED] = ()
    """The same of known defective parts, beside --good."""
    dataset: Name | None = None
    """Dataset with known parts, by its name in the store; the auxiliary one otherwise."""
    split: Literal["train", "test"] | None = None
    """Only the dataset's images of this split."""
    key: Name | None = None
    """Key of the dataset's cache, or its start, where there are several."""
    category: tuple[Name, ...] = ()
    """Categories of the dataset, all otherwise; with --good, what the parts are."""
    weights: Weights = ()
    """Weights file of the guides' backbone, for --good; as in predict otherwise."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range, or images from two places."""
        super().__post_init__()
        if self.good and (self.dataset or self.split or self.key):
            raise OptionsDisagree("--good and --dataset: take own images, or a cached dataset")
        if self.bad and not self.good:
            raise OptionsDisagree("--bad stands beside --good: defects alone make no threshold")
        if self.dataset is None and (self.split or self.key):
            given = "--split" if self.split else "--key"
            raise OptionsDisagree(f"{given} chooses among a dataset's caches: name the --dataset")
        if self.weights and not self.good:
            raise OptionsDisagree("--weights is for the images of --good; cached ones need none")
        if self.good and len(self.category) > 1:
            raise OptionsDisagree(
                f"--category is {','.join(self.category)}; the parts of --good are of one, so "
                "calibrate once a category, each with its own --name"
            )


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(Checked):
    """How a threshold is chosen, and what it is called."""

    rate: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """False-alarm rate to promise of good parts; without it the highest F1 or, where no defects
    are known, the least rate that so many parts can promise."""
    confidence: Annotated[float, Meta(ge=0.5, le=0.999999)] = 0.95
    """How sure the promise is."""
    per_category: bool = False
    """Choose a threshold for each category of a dataset."""
    name: ArtifactName = "default"
    """What the threshold is called; a detector may have several."""
    replace: bool = False
    """Choose it anew, in place of another one of that name."""


@dataclass(frozen=True, kw_only=True)
class PredictSource(GuidesSource):
    """Which images are judged, and with what."""

    images: Annotated[tuple[FilePath, ...], ARGUMENT] = ()
    """Images, folders or quoted globs."""
    watch: FilePath | None = None
    """Folder whose images are judged, then those that arrive in it, until Ctrl-C or SIGTERM."""

    def check(self) -> None:
        """Raises: OptionsDisagree for no images, or images beside --watch."""
        if bool(self.images) == (self.watch is not None):
            raise OptionsDisagree("give images, folders or globs to judge, or --watch FOLDER")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Checked):
    """Judge unseen images with fitted guides; how to score is a `ScoreConfig`."""

    weights: Weights = ()
    """Weights file of the guides' backbone, NAME=FILE where there are several; the file that was
    last used on this machine, or the hub's, otherwise. May be repeated."""
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Score from which an image is anomalous; the calibrated one otherwise."""
    threshold_name: ArtifactName | None = None
    """Which of the calibrated thresholds; the only one, or the one called default, otherwise."""
    category: Name | None = None
    """Category of the images, whose memory and threshold are meant; the only one otherwise."""
    out: FilePath | None = None
    """Folder for a heatmap and an overlay of each image."""
    batch_size: BatchSize = 8
    """Images a forward pass."""
    decoders: Annotated[int, Meta(ge=1, le=256)] = 2
    """Threads that decode images and write pictures beside the model."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range, or two thresholds."""
        super().__post_init__()
        if self.threshold is not None and self.threshold_name is not None:
            raise OptionsDisagree("--threshold and --threshold-name: give a number or a name")


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
    weights: Weights = ()
    """Weights file of the guides' backbone, NAME=FILE where there are several; the file that was
    last used on this machine, or the hub's, otherwise. May be repeated."""
    threshold_name: ArtifactName | None = None
    """Which calibrated threshold goes into the file; as in predict otherwise."""
    category: Name | None = None
    """Category whose threshold goes into the file, where there is one a category."""

    def check(self) -> None:
        """Raises: OptionsDisagree where the format is of something else than what is given."""
        wanted = "guides" if self.format == "onnx" else "sae"
        if (self.guides is None) == (wanted == "guides") or (self.sae is None) == (wanted == "sae"):
            raise OptionsDisagree(f"--format {self.format} takes --{wanted}, and not the other")
        if self.format == "onnx" and not self.out.endswith(".onnx"):
            raise OptionsDisagree(f"--out is {self.out!r}; --format onnx takes a .onnx file")
