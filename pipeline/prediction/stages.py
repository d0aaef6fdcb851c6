"""From a detector to a decision: functions of a store and configs, as in `pipeline.stages`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pipeline.configs import (
    CalibrateConfig,
    CalibrateSource,
    ExportSource,
    PredictConfig,
    PredictSource,
    ScoreConfig,
)
from pipeline.options import Asked, Without

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.artifacts.notes import ThresholdDocument
    from pipeline.interchange.saelens import SaeFiles
    from pipeline.prediction.export import Exported
    from pipeline.prediction.predict import Prediction


def calibrate(
    store: "AnyStore",
    source: CalibrateSource,
    config: CalibrateConfig,
    asked: Annotated[Asked[ScoreConfig], Without("aupro")],
) -> "ThresholdDocument":
    """Choose a threshold of predict on known parts, and keep it with the detector under a name."""
    from cache.store import open_store
    from pipeline.calibration.calibrate import calibrate as run
    from pipeline.detection.find import find_detector, recipe_of

    objects = open_store(store)
    detector = find_detector(objects, source.guides)
    return run(objects, detector, asked.under(recipe_of(detector)), source, config)


def predict(
    store: "AnyStore",
    source: PredictSource,
    config: PredictConfig,
    asked: Annotated[Asked[ScoreConfig], Without("aupro")],
) -> "Iterator[Prediction]":
    """Judge unseen images: score, verdict and heatmap; a broken image does not stop the rest.

    A folder that is watched goes on giving predictions until it is stopped.
    """
    source.check()
    from cache.store import open_store
    from pipeline.detection.find import find_detector, recipe_of
    from pipeline.prediction.inputs import find_images, require_all
    from pipeline.prediction.predict import predict as run
    from pipeline.prediction.watch import watch

    images = find_images(source.images)
    require_all(images)
    detector = find_detector(open_store(store, read_only=True), source.guides)
    scoring = asked.under(recipe_of(detector))
    if source.watch is not None:
        return watch(detector, source.watch, scoring, config)
    return run(detector, images, scoring, config)


def export(
    store: "AnyStore",
    source: ExportSource,
    asked: Annotated[Asked[ScoreConfig], Without("aupro", "device")],
) -> "Exported | SaeFiles":
    """Write a detector as one ONNX file, RGB to map and score, checked; or an SAE for sae-lens."""
    source.check()
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.detection.find import find_detector, recipe_of
    from pipeline.interchange.saelens import export_saelens
    from pipeline.prediction.export import export as run

    objects = open_store(store, read_only=True)
    if source.sae is not None:
        return export_saelens(load_artifact(objects, "saes", source.sae), source.out)
    assert source.guides is not None
    detector = find_detector(objects, source.guides)
    scoring = asked.under(recipe_of(detector))
    return run(
        detector,
        source.out,
        scoring,
        source.weights,
        threshold_name=source.threshold_name,
        category=source.category,
    )
