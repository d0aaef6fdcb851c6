"""A fitted detector: two guide vectors, their backbone's description, and how to draw a map.

    detector = load_detector("spg-store", "latest")
    maps = detector.maps(tokens)            # (B, patches, d) -> (B, height, width) in [0, 1]
    scores = detector.scores(maps)          # (B,)

The SAE is not needed any more: guides are two vectors of the token's width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cache.objects import Objects
from cache.store import open_store
from pipeline.artifacts import Artifact, load_artifact
from pipeline.artifacts.documents import GuidesDocument
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ScoreConfig
from spg_core.anomaly_map import MapOperator, image_scores, map_operator
from spg_core.guides import patch_probabilities, unit
from spg_core.pooling import Pooling


@dataclass(frozen=True)
class Detector:
    """Everything that turns patch tokens into maps and scores."""

    id: str
    spec: BackboneSpec
    guides: Tensor
    """`(2, d_model)` float32: normal, anomalous."""
    temperature: float
    operator: MapOperator
    pooling: Pooling

    def __repr__(self) -> str:
        spec, device = self.spec, self.guides.device
        size = f"{spec.height} x {spec.width} px"
        return f"Detector {self.id}: tokens of {spec.name}, {size}, {self.pooling}, on {device}"

    def patch_probabilities(self, tokens: Tensor) -> Tensor:
        """Give p_A of patches `(B, patches)` in [0, 1] for tokens `(B, patches, d_model)`."""
        return self.unit_probabilities(unit(tokens.float()))

    def unit_probabilities(self, unit_tokens: Tensor) -> Tensor:
        """Give the same for float32 tokens that were brought to length 1 already."""
        return patch_probabilities(unit_tokens, self.guides, self.temperature)

    def maps(self, tokens: Tensor) -> Tensor:
        """Give anomaly maps `(B, height, width)` in [0, 1] at the model's input size."""
        return self.draw(self.patch_probabilities(tokens))

    def draw(self, patches: Tensor) -> Tensor:
        """Give maps `(B, height, width)` in [0, 1] of patch probabilities `(B, patches)`."""
        # a weighted mean of them, but for rounding
        return self.operator(patches).clamp(0, 1)

    def scores(self, maps: Tensor) -> Tensor:
        """Give image scores `(B,)` for maps `(B, height, width)`."""
        return image_scores(maps, self.pooling)

    def to(self, device: torch.device | str) -> "Detector":
        """Give the same detector on another device."""
        return Detector(
            self.id,
            self.spec,
            self.guides.to(device),
            self.temperature,
            self.operator.to(device),
            self.pooling,
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
    """Make a detector of a guides artifact that is already read."""
    pair = artifact.tensors[f"guides_{config.coefficients}"]
    spec = artifact.document.backbone.spec
    operator = map_operator(spec.grid, spec.height, spec.width, config.sigma)
    temperature = artifact.document.config.temperature
    return Detector(artifact.id, spec, pair.float(), temperature, operator, config.pooling)
