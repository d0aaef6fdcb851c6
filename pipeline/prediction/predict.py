"""Predict: unseen images to a score, a verdict and pictures, batch by batch, in the order given.

The maths is that of `score`, down to the float16 in which a cache would hold the tokens, so an
image has the same score in both and a threshold calibrated on cached tokens means the same here.
What is left is the order of sums in a batch of another size: below 1e-5 where the model computes in
float32. In tf32, bfloat16 or float16, on a GPU, it is as coarse as their digits; not measured.

An image that cannot be used is a prediction with an error, and the others go on.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from manifests.images import open_image
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import PredictConfig, ScoreConfig
from pipeline.detection.detector import Detector
from pipeline.detection.find import AnyDetector
from pipeline.detection.load import make_detector
from pipeline.drawing.mark import is_marked
from pipeline.drawing.overlay import heatmap, overlay, save_picture
from pipeline.files import check_place, new_file
from pipeline.prediction.inputs import (
    HEATMAP,
    OVERLAY,
    Listed,
    output_names,
    with_room_for_pictures,
)
from pipeline.prediction.model import Inputs, Model, Specs, judge, load_model, specs_of
from pipeline.prediction.threshold import Threshold, choose_threshold
from spg_core.errors import ConfigError, DatasetError, StoreError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is said of one image; its fields are the keys of a JSON line."""

    path: str
    score: float | None = None
    """In [0, 1], larger is more anomalous; None with an `error`."""
    threshold: float | None = None
    threshold_source: str | None = None
    """`given`, or its name and what it was calibrated for and on."""
    verdict: str | None = None
    """`anomalous` (score >= threshold) or `normal`; None with a `reason` or an `error`."""
    reason: str | None = None
    """Why there is a score but no verdict."""
    heatmap: str | None = None
    overlay: str | None = None
    error: str | None = None


class _Decoded(NamedTuple):
    """One image on its way to the model: its inputs, or what is wrong with it."""

    listed: Listed
    name: str
    pixels: Inputs | None
    error: str | None


def predict(
    guides: AnyDetector,
    images: Sequence[Listed],
    scoring: ScoreConfig,
    config: PredictConfig,
) -> Iterator[Prediction]:
    """Judge images with guides, a memory or a combination, in order.

    Raises: ArtifactError, BackboneError, ConfigError, NotInStore, CorruptStore before the first
        image; StoreError where pictures cannot be written. A bad image raises nothing.
    """
    if config.out is not None and Path(config.out).exists() and not Path(config.out).is_dir():
        raise ConfigError(f"out is a folder for pictures, but {config.out} is a file")
    if config.out is not None:
        images = with_room_for_pictures(images)
        check_pictures(images, Path(config.out))
    threshold = choose_threshold(
        guides, scoring, config.threshold, config.threshold_name, config.category
    )
    detector = make_detector(guides, scoring).of_category(config.category)
    if all(one.error is not None for one in images):
        # nothing to judge is told at once, not after a model is loaded
        return (Prediction(path=one.path, error=one.error) for one in images)
    specs = specs_of(detector)
    model = load_model(detector, specs, config.weights, scoring.device)
    return _predictions(model, specs, threshold, images, config)


def check_pictures(images: Sequence[Listed], out: Path) -> None:
    """Refuse a folder in which the pictures would replace an input, or a file that is not ours.

    Raises: StoreError naming the file.
    """
    inputs = {_identity(Path(one.path)) for one in images if one.error is None}
    for one, name in zip(images, output_names(images), strict=True):
        for ending in (HEATMAP, OVERLAY) if one.error is None else ():
            place = out / (name + ending)
            check_place(place, is_marked, make_folders=True)
            if place.exists() and _identity(place) in inputs:
                raise StoreError(
                    f"{place} is an image to judge and would be replaced by a picture of "
                    f"{one.path}; choose another --out"
                )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _predictions(
    model: Model,
    specs: Specs,
    threshold: Threshold,
    images: Sequence[Listed],
    config: PredictConfig,
) -> Iterator[Prediction]:
    with ThreadPoolExecutor(config.decoders) as pool:
        for batch in _batches(pool, images, specs, config.batch_size):
            usable = [one.pixels for one in batch if one.pixels is not None]
            found = iter(zip(*judge(model, usable), strict=True) if usable else ())
            judged = [(one, next(found) if one.pixels is not None else None) for one in batch]
            futures = [
                pool.submit(_judge, one, made, model.detector, threshold, config.out)
                for one, made in judged
            ]
            yield from (future.result() for future in futures)


def _batches(
    pool: ThreadPoolExecutor, images: Sequence[Listed], specs: Specs, size: int
) -> Iterator[list[_Decoded]]:
    """Decode one batch ahead of the model; at most two batches of model inputs are in memory."""
    names = output_names(images)
    pairs = list(zip(images, names, strict=True))
    ahead: list[Future[_Decoded]] = []
    for start in range(0, len(pairs) + size, size):
        ready = [future.result() for future in ahead]
        ahead = [
            pool.submit(_decode, listed, name, specs)
            for listed, name in pairs[start : start + size]
        ]
        if ready:
            yield ready


def _decode(listed: Listed, name: str, specs: Specs) -> _Decoded:
    if listed.error is not None:
        return _Decoded(listed, name, None, listed.error)
    try:
        return _Decoded(listed, name, specs.prepare(Path(listed.path)), None)
    except DatasetError as error:
        return _Decoded(listed, name, None, str(error))


def _judge(
    one: _Decoded,
    made: tuple[Tensor, Tensor] | None,
    detector: Detector,
    threshold: Threshold,
    out: str | None,
) -> Prediction:
    """Turn one map and its score into a prediction and its pictures."""
    path = one.listed.path
    if made is None:
        return Prediction(path=path, error=one.error)
    found, score = made[0].numpy(), float(made[1])
    if not np.isfinite(score):
        return Prediction(
            path=path, error=f"{path}: the score is not finite; its tokens do not fit in float16"
        )
    pictures: tuple[str, str] | tuple[None, None] = (None, None)
    if out is not None:
        try:
            pictures = _draw(path, found, Path(out) / one.name, detector.spec)
        except DatasetError as error:
            return Prediction(path=path, error=str(error))
    return Prediction(
        path=path,
        score=score,
        threshold=threshold.value,
        threshold_source=threshold.source,
        verdict=threshold.verdict(score),
        reason=threshold.reason,
        heatmap=pictures[0],
        overlay=pictures[1],
    )


def _draw(
    path: str, found: NDArray[np.float32], target: Path, spec: BackboneSpec
) -> tuple[str, str]:
    """Write heatmap and overlay of an image; give their paths.

    The image is decoded again, so that no full-size picture waits in memory for the model.
    """
    photo = open_image(Path(path), exif=spec.exif)
    written = []
    for ending, picture in ((HEATMAP, heatmap(found)), (OVERLAY, overlay(photo, found))):
        place = target.with_name(target.name + ending)
        with new_file(place, is_marked, make_folders=True) as temporary:
            save_picture(picture, temporary)
        written.append(str(place))
    return written[0], written[1]
