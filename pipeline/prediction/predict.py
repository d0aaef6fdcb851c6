"""Predict: unseen images to a score, a verdict and pictures, batch by batch, in the order given.

The maths is that of `score`, down to the float16 in which a cache would hold the tokens, so an
image has the same score in both and a threshold calibrated on cached tokens means the same here.
What is left is the order of sums in a batch of another size: below 1e-5 where the model computes in
float32. In tf32, bfloat16 or float16, on a GPU, it is as coarse as their digits; not measured.

An image that cannot be used is a prediction with an error, and the others go on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.configs import PredictConfig, ScoreConfig
from pipeline.detection.find import AnyDetector
from pipeline.detection.load import fitted_aspects, make_detector
from pipeline.drawing.verdict_picture import Said
from pipeline.prediction.familiar import Familiar, doubts_of
from pipeline.prediction.familiar_file import choose_familiar
from pipeline.prediction.inputs import Listed, require_all
from pipeline.prediction.look import Look
from pipeline.prediction.model import Inputs, Model, Specs, judge, load_model, specs_of
from pipeline.prediction.pictures import (
    Pictures,
    check_pictures,
    draw,
    output_names,
    with_room_for_pictures,
)
from pipeline.prediction.threshold import Threshold, choose_threshold
from pipeline.prediction.verdict import decide
from spg_core.errors import ConfigError, DatasetError

Named = tuple[Listed, str]
"""An image with the start of its pictures' names."""
Seen = Callable[[str, Look, Tensor], None]
"""Is given path, look and tokens `(P, d)` float16 of each image that is judged."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is said of one image; its fields are the keys of a JSON line."""

    path: str
    score: float | None = None
    """In [0, 1], larger is more anomalous; None with an `error`."""
    applicability: float | None = None
    """How well the detector knows the like of it: 1 fully, below 0.5 not; None where it was not
    calibrated on own good parts, or with an `error`."""
    threshold: float | None = None
    threshold_source: str | None = None
    """`given`, or its name and what it was calibrated for and on."""
    verdict: str | None = None
    """`anomalous` (score >= threshold), `normal`, or `unsure` where the detector does not apply;
    None with a `reason` or an `error`."""
    reason: str | None = None
    """Why the detector does not apply, or why there is a score but no verdict."""
    heatmap: str | None = None
    overlay: str | None = None
    error: str | None = None


class _Decoded(NamedTuple):
    """One image on its way to the model: its inputs, or what is wrong with it."""

    listed: Listed
    name: str
    pixels: Inputs | None
    look: Look | None
    error: str | None


class _Made(NamedTuple):
    """What the model made of one image."""

    map: NDArray[np.float32]
    score: float
    applicability: float | None


@dataclass(frozen=True)
class Judge:
    """A detector ready to judge, with all that its verdicts are made from."""

    model: Model
    specs: Specs
    threshold: Threshold
    familiar: Familiar | None
    aspects: tuple[float, ...]
    config: PredictConfig
    seen: Seen | None = None

    @contextmanager
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        """Give threads that decode; when the block is left, what waits in them is dropped."""
        pool = ThreadPoolExecutor(self.config.decoders)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)

    def predictions(
        self, pool: ThreadPoolExecutor, images: Iterable[Named]
    ) -> Iterator[Prediction]:
        """Judge images in order."""
        for batch in _batches(pool, list(images), self.specs, self.config.batch_size):
            made = iter(self._made([one for one in batch if one.pixels is not None]))
            futures = [
                pool.submit(self._say, one, None if one.pixels is None else next(made))
                for one in batch
            ]
            yield from (future.result() for future in futures)

    def _made(self, usable: Sequence[_Decoded]) -> list[_Made]:
        if not usable:
            return []
        found = judge(self.model, [one.pixels for one in usable if one.pixels is not None])
        for one, tokens in zip(usable, found.tokens, strict=True):
            if self.seen is not None and one.look is not None:
                self.seen(one.listed.path, one.look, tokens)
        applies: Sequence[float | None] = [None] * len(usable)
        if self.familiar is not None:
            applies = self.familiar.applicability(found.tokens)
        pairs = zip(found.maps.numpy(), found.scores.tolist(), applies, strict=True)
        return [_Made(*one) for one in pairs]

    def _say(self, one: _Decoded, made: _Made | None) -> Prediction:
        """Turn one map and its score into a prediction and its pictures."""
        path = one.listed.path
        if made is None or one.look is None:
            return Prediction(path=path, error=one.error)
        if not np.isfinite(made.score):
            return Prediction(
                path=path,
                error=f"{path}: the score is not finite; its tokens do not fit in float16",
            )
        doubts = doubts_of(one.look, made.applicability, self.familiar, self.aspects)
        verdict, reason = decide(made.score, self.threshold, doubts)
        try:
            pictures = self._draw(one, made, verdict, reason)
        except DatasetError as error:
            return Prediction(path=path, error=str(error))
        return Prediction(
            path=path,
            score=made.score,
            applicability=made.applicability,
            threshold=self.threshold.value,
            threshold_source=self.threshold.source,
            verdict=verdict,
            reason=reason,
            heatmap=None if pictures is None else pictures.heatmap,
            overlay=None if pictures is None else pictures.overlay,
        )

    def _draw(
        self, one: _Decoded, made: _Made, verdict: str | None, reason: str | None
    ) -> Pictures | None:
        """Write the pictures of an image, where they are wanted. Raises: DatasetError."""
        if self.config.out is None:
            return None
        target, exif = Path(self.config.out) / one.name, self.model.detector.spec.exif
        said = Said(made.score, self.threshold.value, verdict, reason)
        return draw(one.listed.path, made.map, target, said, exif=exif)


def predict(
    guides: AnyDetector,
    images: Sequence[Listed],
    scoring: ScoreConfig,
    config: PredictConfig,
    seen: Seen | None = None,
) -> Iterator[Prediction]:
    """Judge images with guides, a memory or a combination, in order.

    Raises: DatasetError where a file or folder that was asked for is not there, ArtifactError,
        BackboneError, ConfigError, NotInStore, CorruptStore, all before the first image; StoreError
        where pictures cannot be written. A bad image raises nothing.
    """
    require_all(images)
    check_out(config)
    names = output_names(images)
    if config.out is not None:
        images = with_room_for_pictures(images)
        check_pictures(images, names, Path(config.out))
    if all(one.error is not None for one in images):
        # nothing to judge is told at once, not after a model is loaded
        return (Prediction(path=one.path, error=one.error) for one in images)
    return _all(open_judge(guides, scoring, config, seen), list(zip(images, names, strict=True)))


def open_judge(
    guides: AnyDetector, scoring: ScoreConfig, config: PredictConfig, seen: Seen | None = None
) -> Judge:
    """Choose the threshold, load the model, and give what judges images.

    Raises: ArtifactError, BackboneError, ConfigError, NotInStore, CorruptStore.
    """
    threshold = choose_threshold(
        guides, scoring, config.threshold, config.threshold_name, config.category
    )
    familiar = choose_familiar(guides, threshold.saved)
    detector = make_detector(guides, scoring).of_category(config.category)
    specs = specs_of(detector)
    model = load_model(detector, specs, config.weights, scoring.device)
    aspects = fitted_aspects(guides) if familiar is None else ()
    return Judge(model, specs, threshold, familiar, aspects, config, seen)


def check_out(config: PredictConfig) -> None:
    """Refuse a folder for pictures that is none. Raises: ConfigError."""
    if config.out is not None and Path(config.out).exists() and not Path(config.out).is_dir():
        raise ConfigError(f"out is a folder for pictures, but {config.out} is a file")


def _all(judge: Judge, images: Sequence[Named]) -> Iterator[Prediction]:
    with judge.pool() as pool:
        yield from judge.predictions(pool, images)


def _batches(
    pool: ThreadPoolExecutor, images: Sequence[Named], specs: Specs, size: int
) -> Iterator[list[_Decoded]]:
    """Decode one batch ahead of the model; at most two batches of model inputs are in memory."""
    ahead: list[Future[_Decoded]] = []
    for start in range(0, len(images) + size, size):
        ready = [future.result() for future in ahead]
        ahead = [
            pool.submit(_decode, listed, name, specs)
            for listed, name in images[start : start + size]
        ]
        if ready:
            yield ready


def _decode(listed: Listed, name: str, specs: Specs) -> _Decoded:
    if listed.error is not None:
        return _Decoded(listed, name, None, None, listed.error)
    try:
        return _Decoded(listed, name, *specs.prepare(Path(listed.path)), None)
    except DatasetError as error:
        return _Decoded(listed, name, None, None, str(error))
