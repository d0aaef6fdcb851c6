"""What stands between a picture and a map: the backbones of a detector's parts, and the detector.

Parts on several layers of one backbone take their tokens from one forward pass. Parts on several
backbones have a forward pass each, and each its own way to prepare a picture.

Axes: B images; backbones in the order in which the parts first name them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
from pipeline.machine.device import by_halves
from pipeline.prediction.look import Look, look_of
from spg_core.errors import ConfigError

Inputs = tuple[Tensor, ...]
"""Of one image, an input `(3, H, W)` for each backbone."""


@dataclass(frozen=True)
class Specs:
    """What a detector's parts take, by backbone."""

    backbones: tuple[tuple[BackboneSpec, ...], ...]
    """The layers of each."""
    places: tuple[tuple[int, int], ...]
    """Of each part: which backbone, which of its layers."""

    def prepare(self, path: Path) -> tuple[Inputs, Look]:
        """Decode a picture once, or as is and turned; prepare it for every backbone, and look.

        Raises: DatasetError.
        """
        first = [layers[0] for layers in self.backbones]
        pictures = {turn: open_image(path, exif=turn) for turn in {one.exif for one in first}}
        inputs = tuple(preprocess(pictures[one.exif], one) for one in first)
        return inputs, look_of(pictures[first[0].exif])


@dataclass(frozen=True)
class Model:
    """A detector with its backbones, on one device."""

    backbones: tuple[Backbone, ...]
    places: tuple[tuple[int, int], ...]
    detector: Detector

    @torch.inference_mode()
    def tokens(self, inputs: Sequence[Inputs]) -> list[Tensor]:
        """Give each part's tokens `(B, P, d)` for prepared pictures.

        As float16, in which a cache holds them.
        """
        found = [
            backbone.layers(torch.stack(list(pixels)))
            for backbone, pixels in zip(self.backbones, zip(*inputs, strict=True), strict=True)
        ]
        given = [found[backbone][layer] for backbone, layer in self.places]
        pairs = zip(self.detector.parts, given, strict=True)
        return [tokens_for(part, one).to(torch.float16) for part, one in pairs]


class Judged(NamedTuple):
    """What a model makes of B pictures."""

    maps: Tensor
    """`(B, H, W)` in [0, 1], on the CPU."""
    scores: Tensor
    """`(B,)`, likewise."""
    tokens: Tensor
    """`(B, P, d)` float16 of the first part that draws, where the model is."""


def judge(model: Model, inputs: Sequence[Inputs]) -> Judged:
    """Give maps and image scores of prepared pictures, and the tokens they were made from.

    Raises: MetricError for a GPU on which one does not fit.
    """
    parts: list[Judged] = []
    device, n = model.detector.device, len(inputs)
    by_halves("judging", n, n, device, lambda here: parts.append(_judge(model, inputs[here])))
    return parts[0] if len(parts) == 1 else Judged(*map(torch.cat, zip(*parts, strict=True)))


@torch.inference_mode()
def _judge(model: Model, inputs: Sequence[Inputs]) -> Judged:
    detector, tokens = model.detector, model.tokens(inputs)
    values = detector.values(*tokens)
    maps = detector.draw(*values).cpu()
    scores = detector.scores(maps, *(one.cpu() for one in values))
    return Judged(maps, scores, tokens[drawing_place(detector)])


def drawing_place(detector: Detector) -> int:
    """Give the place, among its parts, of the first that draws."""
    return next(at for at, part in enumerate(detector.parts) if part.reads == "patches")


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


def load_model(detector: Detector, specs: Specs, weights: Sequence[str], device: str) -> Model:
    """Load the backbones of a detector, and put it beside them.

    Args:
        detector: on any device.
        specs: of its parts.
        weights: weights files, NAME=FILE or those whose digest a backbone asks for.
        device: auto, cpu, cuda or cuda:N.

    Raises: ArtifactError, BackboneError, ConfigError, as `load_stored_layers` and `files_of`.
    """
    files = files_of(specs, weights)
    backbones = [
        load_stored_layers(layers, file, device)
        for layers, file in zip(specs.backbones, files, strict=True)
    ]
    return Model(tuple(backbones), specs.places, detector.to(backbones[0].device))


def files_of(specs: Specs, weights: Sequence[str]) -> list[str | None]:
    """Tell which weights file each backbone is loaded from; None where none was given.

    One backbone's file needs no name. Of several a file without one goes where its digest is asked
    for; backbones of one name, at several input sizes, share theirs.

    Raises: ConfigError for a file that is not there, is of none of them, or one of two for one.
    """
    names = [layers[0].name for layers in specs.backbones]
    found: dict[str, str] = {}
    for text in weights:
        name, file = _named(text, names)
        if not Path(file).is_file():
            raise ConfigError(f"--weights {text}: no such file")
        name = name or _whose(specs, file)
        if found.setdefault(name, file) != file:
            raise ConfigError(f"--weights gives {name} {found[name]} and {file}; take one of them")
    return [found.get(name) for name in names]


def _named(text: str, names: Sequence[str]) -> tuple[str | None, str]:
    for name in names:
        if text.startswith(f"{name}="):
            return name, str(Path(text.removeprefix(f"{name}=")).expanduser())
    return (names[0] if len(set(names)) == 1 else None), str(Path(text).expanduser())


def _whose(specs: Specs, file: str) -> str:
    """Tell by its digest which backbone a weights file is of. Raises: ConfigError."""
    digest = sha256_of_file(Path(file))
    for layers in specs.backbones:
        if layers[0].weights_sha256 == digest:
            return layers[0].name
    names = ", ".join(dict.fromkeys(layers[0].name for layers in specs.backbones))
    raise ConfigError(
        f"--weights {file} has SHA-256 {digest[:16]}..., which none of {names} was fitted with"
    )


def _find(backbones: Sequence[Sequence[BackboneSpec]], spec: BackboneSpec) -> int | None:
    """Find the backbone that a spec is a layer of."""
    for at, layers in enumerate(backbones):
        if {**layers[0].covers(), "layer": None} == {**spec.covers(), "layer": None}:
            return at
    return None
