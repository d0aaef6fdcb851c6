"""A fitted detector: its parts, each with its map operator, and how maps become image scores.

    detector = load_detector("spg-store", "latest")
    maps = detector.maps(tokens)            # (B, patches, d) -> (B, height, width) in [0, 1]
    scores = detector.scores(maps)          # (B,)

Nothing that a part was fitted with is needed any more: guides are two vectors of a token's width.

Axes: B images; P_i patches of part i.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cache.objects import Objects
from cache.store import open_store
from pipeline.artifacts import Artifact, load_artifact
from pipeline.artifacts.documents import GuidesDocument
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ScoreConfig
from pipeline.detection.parts import Part, guides_part
from spg_core.anomaly_map import MapOperator, image_scores, map_operator
from spg_core.guides import unit
from spg_core.pooling import Pooling


@dataclass(frozen=True)
class Detector:
    """Everything that turns tokens into maps and scores."""

    id: str
    """Of the artifact."""
    parts: tuple[Part, ...]
    operators: tuple[MapOperator, ...]
    """From each part's patches to the pixels of `spec`."""
    pooling: Pooling

    def __repr__(self) -> str:
        spec, size = self.spec, f"{self.spec.height} x {self.spec.width} px"
        of, where = f"tokens of {spec.name}, {size}", self.device
        return f"Detector {self.id}: {of}, {self.pooling}, on {where}"

    @property
    def spec(self) -> BackboneSpec:
        """The first part's backbone, whose input size is the maps'."""
        return self.parts[0].spec

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.parts[0].device

    def values(self, *tokens: Tensor, category: str | None = None) -> list[Tensor]:
        """Give each part's values `(B, P_i)` in [0, 1] for its tokens `(B, P_i, d_i)`, any dtype.

        Args:
            tokens: of each part, in order.
            category: of the images; None where nobody knows.
        """
        pairs = zip(self.parts, tokens, strict=True)
        return [part.values(unit(one.float()), category) for part, one in pairs]

    def maps(self, *tokens: Tensor, category: str | None = None) -> Tensor:
        """Give anomaly maps `(B, height, width)` in [0, 1] at the model's input size."""
        return self.draw(*self.values(*tokens, category=category))

    def draw(self, *values: Tensor) -> Tensor:
        """Give maps `(B, height, width)` in [0, 1] of each part's values `(B, P_i)`."""
        [only], [operator] = values, self.operators
        # a weighted mean of them, but for rounding
        return operator(only).clamp(0, 1)

    def scores(self, maps: Tensor) -> Tensor:
        """Give image scores `(B,)` for maps `(B, height, width)`."""
        return image_scores(maps, self.pooling)

    def to(self, device: torch.device | str) -> "Detector":
        """Give the same detector on another device."""
        return replace(
            self,
            parts=tuple(part.to(device) for part in self.parts),
            operators=tuple(operator.to(device) for operator in self.operators),
        )


def load_detector(
    store: str | Objects, guides: str = "latest", config: ScoreConfig | None = None
) -> Detector:
    """Load a detector from its guides: an id, a unique prefix, a path, or `latest`.

    Raises: NotInStore, ArtifactError or CorruptStore, as `load_artifact`.
    """
    objects = open_store(store, read_only=True) if isinstance(store, str) else store
    artifact = load_artifact(objects, "guides", guides)
    return make_detector(artifact, config or ScoreConfig())


def make_detector(artifact: Artifact[GuidesDocument], config: ScoreConfig) -> Detector:
    """Make a detector of an artifact that is already read."""
    return detector_of(artifact.id, [guides_part(artifact, config.coefficients)], config)


def detector_of(identifier: str, parts: list[Part], config: ScoreConfig) -> Detector:
    """Make a detector of its parts; maps are of the first part's input size."""
    size = (parts[0].spec.height, parts[0].spec.width)
    operators = [map_operator(part.spec.grid, *size, config.sigma) for part in parts]
    return Detector(identifier, tuple(parts), tuple(operators), config.pooling)
