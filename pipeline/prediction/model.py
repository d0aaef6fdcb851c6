"""What stands between a picture and a map: the backbones of a detector's parts, and the detector.

Parts on several layers of one backbone take their tokens from one forward pass. Parts on several
backbones have a forward pass each, and each its own way to prepare a picture.

Axes: B images; backbones in the order in which the parts first name them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from manifests.images import open_image
from pipeline.backbones.digest import sha256_of_file
from pipeline.backbones.load import Backbone
from pipeline.backbones.preprocess import preprocess
from pipeline.backbones.spec import BackboneSpec
from pipeline.backbones.stored import load_stored_layers
from pipeline.detection.detector import Detector
from pipeline.detection.parts import Part

Inputs = tuple[Tensor, ...]
"""Of one image, an input `(3, H, W)` for each backbone."""


@dataclass(frozen=True)
class Specs:
    """What a detector's parts take, by backbone."""

    backbones: tuple[tuple[BackboneSpec, ...], ...]
    """The layers of each."""
    places: tuple[tuple[int, int], ...]
    """Of each part: which backbone, which of its layers."""

    def prepare(self, path: Path) -> Inputs:
        """Decode a picture once, or as is and turned, and prepare it for every backbone.

        Raises: DatasetError.
        """
        first = [layers[0] for layers in self.backbones]
        pictures = {turn: open_image(path, exif=turn) for turn in {one.exif for one in first}}
        return tuple(preprocess(pictures[one.exif], one) for one in first)


@dataclass(frozen=True)
class Model:
    """A detector with its backbones, on one device."""

    backbones: tuple[Backbone, ...]
    places: tuple[tuple[int, int], ...]
    detector: Detector

    @torch.inference_mode()
    def values(self, inputs: Sequence[Inputs]) -> list[Tensor]:
        """Give each part's values `(B, P)` for prepared pictures.

        Tokens pass through float16, in which a cache holds them.
        """
        found = [
            backbone.layers(torch.stack(list(pixels)))
            for backbone, pixels in zip(self.backbones, zip(*inputs, strict=True), strict=True)
        ]
        given = [found[backbone][layer] for backbone, layer in self.places]
        tokens = [
            tokens_for(part, one) for part, one in zip(self.detector.parts, given, strict=True)
        ]
        return self.detector.values(*(one.to(torch.float16) for one in tokens))


@torch.inference_mode()
def judge(model: Model, inputs: Sequence[Inputs]) -> tuple[Tensor, Tensor]:
    """Give maps `(B, H, W)` in [0, 1] and image scores `(B,)` of prepared pictures, on the CPU."""
    values = model.values(inputs)
    maps = model.detector.draw(*values).cpu()
    return maps, model.detector.scores(maps, *(one.cpu() for one in values))


def tokens_for(part: Part, given: tuple[Tensor, Tensor | None]) -> Tensor:
    """Give the tokens `(B, P, d)` that a part reads, of a layer's patch and CLS tokens."""
    tokens, cls = given
    if part.reads == "patches":
        return tokens
    assert cls is not None  # its guides were fitted on them
    return cls[:, None]


def specs_of(detector: Detector) -> Specs:
    """Sort the layers that a detector's parts take by their backbones."""
    backbones: list[list[BackboneSpec]] = []
    places = []
    for part in detector.parts:
        at = _find(backbones, part.spec)
        if at is None:
            at = len(backbones)
            backbones.append([])
        layers = backbones[at]
        if all(one.covers() != part.spec.covers() for one in layers):
            layers.append(part.spec)
        places.append((at, [one.covers() for one in layers].index(part.spec.covers())))
    return Specs(tuple(map(tuple, backbones)), tuple(places))


def load_model(detector: Detector, specs: Specs, weights: str | None, device: str) -> Model:
    """Load the backbones of a detector, and put it beside them.

    Args:
        detector: on any device.
        specs: of its parts.
        weights: a weights file of the one backbone, or of that one of several whose it is.
        device: auto, cpu, cuda or cuda:N.

    Raises: ArtifactError, BackboneError, ConfigError, as `load_stored_layers`.
    """
    own = _whose(specs, weights)
    backbones = [
        load_stored_layers(layers, weights if at == own else None, device)
        for at, layers in enumerate(specs.backbones)
    ]
    return Model(tuple(backbones), specs.places, detector.to(backbones[0].device))


def _whose(specs: Specs, weights: str | None) -> int:
    """Tell which backbone a weights file is of; the first where it is of none, to be refused."""
    if weights is None or len(specs.backbones) == 1 or not Path(weights).is_file():
        return 0
    digest = sha256_of_file(Path(weights))
    found = [layers[0].weights_sha256 == digest for layers in specs.backbones]
    return found.index(True) if True in found else 0


def _find(backbones: Sequence[Sequence[BackboneSpec]], spec: BackboneSpec) -> int | None:
    """Find the backbone that a spec is a layer of."""
    for at, layers in enumerate(backbones):
        if {**layers[0].covers(), "layer": None} == {**spec.covers(), "layer": None}:
            return at
    return None
