"""Everything a report shows, as plain values: the border between `score` and the page.

Axes: h, w = pixels of a picture. Maps are anomaly probabilities in [0, 1]. Optional parts default
to empty; an empty part is left out of the page, never shown as an empty box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.artifacts.terms import Metrics
from spg_core.errors import MetricError

Rank = Literal["best", "median", "worst"]
GuideName = Literal["normal", "anomaly"]


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """Metrics of one category, of their mean, or of one control."""

    values: Mapping[str, float | None]
    """`image_auroc`, `image_ap`, ... in [0, 1]; None where the metric does not exist."""
    reason: str = ""
    """Why some values are None."""


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One scored image."""

    row: int
    category: str
    defect: str
    label: int
    """0 normal, 1 anomalous."""
    score: float
    image_path: str


@dataclass(frozen=True, kw_only=True)
class GalleryItem:
    """One image with its pictures."""

    image: ImageRow
    rank: Rank
    anomaly_map: npt.NDArray[np.float32]
    """`(h, w)` in [0, 1], the map that was scored."""
    parts: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Of a detector of several parts, what each saw: `(h, w)` in [0, 1], by a name of the part."""
    whole: Mapping[str, float] = field(default_factory=dict)
    """Of parts on CLS tokens, which draw nothing: the value in [0, 1] of the whole image."""
    thumbnail: bytes | None = None
    """JPEG of the model input; None where the cache holds none."""
    mask: npt.NDArray[np.uint8] | None = None
    """`(h, w)` 0/1; None where the image has no mask."""

    def __post_init__(self) -> None:
        """Raises: MetricError for a map that is no 2-D map of probabilities."""
        for found in (self.anomaly_map, *self.parts.values()):
            if found.ndim != 2 or 0 in found.shape:
                raise MetricError(
                    f"image {self.image.row}: an anomaly map is (height, width), got {found.shape}"
                )
            if not (found.min() >= 0 and found.max() <= 1):
                raise MetricError(
                    f"image {self.image.row}: its anomaly map spans {found.min()} to "
                    f"{found.max()}; the report's fixed scale needs finite probabilities in [0, 1]"
                )


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line: `x[i]`, `y[i]`."""

    x: Sequence[float] | npt.NDArray[np.floating]
    y: Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class CategoryCurves:
    """Curves of one category; rates in [0, 1]."""

    image_roc: Line | None = None
    pixel_roc: Line | None = None
    image_pr: Line | None = None
    """Precision against recall, a staircase."""
    pixel_pr: Line | None = None
    pro: Line | None = None
    """Per-region overlap against false-positive rate."""


@dataclass(frozen=True, kw_only=True)
class SparsityRow:
    """How many coefficients of one guide are in use."""

    guide: GuideName
    parameters: Literal["raw", "EMA"]
    nonzero: int
    l1: float


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """Coefficients in use, raw and EMA, of both guides."""

    n_latents: int
    rows: Sequence[SparsityRow]
    note: str = ""
    """Such as: the EMA of few steps stays dense."""


@dataclass(frozen=True, kw_only=True)
class LinePlot:
    """Named lines over one x axis."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Line]
    log_x: bool = False


@dataclass(frozen=True, kw_only=True)
class AtomPatch:
    """One of an atom's strongest patches, shown within its image."""

    row: int
    """Of the image in its manifest."""
    image_id: str
    image_path: str
    category: str
    defect: str
    activation: float
    heatmap: npt.NDArray[np.float32]
    """Activations >= 0 over the picture, one a patch, `(grid rows, grid cols)`."""
    patch: tuple[int, int]
    """Row and column of the patch in the grid."""
    thumbnail: bytes | None = None
    """JPEG of exactly what `heatmap` covers."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The patch: left, top, width, height as shares of the picture."""
        (row, col), (rows, cols) = self.patch, self.heatmap.shape
        return col / cols, row / rows, 1 / cols, 1 / rows

    def __post_init__(self) -> None:
        """Raises: MetricError for a heatmap that is no 2-D map of finite activations >= 0."""
        found = self.heatmap
        if (
            found.ndim != 2
            or 0 in found.shape
            or not (found.min() >= 0 and np.isfinite(found).all())
        ):
            raise MetricError(
                f"the activations over {self.image_path} must be a (height, width) array of finite "
                f"numbers >= 0, got shape {found.shape}"
            )


@dataclass(frozen=True, kw_only=True)
class Atom:
    """One active atom of a guide."""

    index: int
    guide: GuideName
    coefficient: float
    patches: Sequence[AtomPatch]
    """Strongest first; none for an atom that never fires."""
    category_spread: Mapping[str, float] = field(default_factory=dict)
    """Share of each category, all counted as if they had equally many images; adds up to 1."""
    defect_spread: Mapping[str, float] = field(default_factory=dict)
    """The same over the kinds of defect."""

    @property
    def top(self) -> float:
        """Where the one colour scale of its patches ends: its strongest activation shown."""
        return max((float(patch.heatmap.max()) for patch in self.patches), default=0.0) or 1.0


@dataclass(frozen=True)
class Tile:
    """An image as small as it can be told by."""

    photo: bytes | None
    """JPEG; None where the cache holds none."""
    heat: bytes
    """PNG, which lets the photo through."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that one page shows."""

    title: str
    run: Mapping[str, str]
    """The run card: command, parents, versions, seed, recipe, AUPRO definition."""
    mean: MetricRow
    categories: Mapping[str, MetricRow]
    images: Sequence[ImageRow]
    gallery: Sequence[GalleryItem] = ()
    tiles: Mapping[int, Tile] = field(default_factory=dict)
    """Of the images, by their rows; fewer than all where there are very many."""
    scale_top: float = 1.0
    """Where the one colour scale of all heatmaps ends; the page states it. Starts at 0."""
    controls: Mapping[str, MetricRow] = field(default_factory=dict)
    """Mean metrics of control runs, such as the dictionaries `none`, `pca`, `random`."""
    curves: Mapping[str, CategoryCurves] = field(default_factory=dict)
    tau_curve: LinePlot | None = None
    """Mean image metrics against the pooling temperature tau."""
    sparsity: Sparsity | None = None
    training: Sequence[LinePlot] = ()
    atoms: Sequence[Atom] = ()

    def __post_init__(self) -> None:
        """Raises: MetricError for a colour scale that does not lie in [0, 1]."""
        if not 0 < self.scale_top <= 1:
            raise MetricError(
                f"the heatmap scale ends at {self.scale_top}; it must end in (0, 1] because maps "
                "are probabilities"
            )


def metric_row(stored: Metrics) -> MetricRow:
    """Give stored metrics as a report shows them."""
    return MetricRow(values=stored.values, reason="; ".join(stored.reasons))
