"""The score from which an image counts as anomalous: given, or calibrated and kept with the guides.

`calibrate` scores the cached auxiliary images, whose labels are known, picks a threshold and
writes `threshold.json` beside the guides. It belongs to one way of pooling and smoothing: with
another pooling, sigma or set of coefficients the scores mean something else, and it is not used.

The guides were fitted on those same images, so the rates measured there are better than what new
images will show; the document and the command say so.

Axes: n images.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.objects import Objects
from pipeline.artifacts.notes import (
    Measured,
    Scoring,
    ThresholdDocument,
    read_note,
    write_note,
)
from pipeline.configs import ScoreConfig
from pipeline.detection.find import AnyDetector
from spg_core.errors import ConfigError, CorruptStore, MetricError, NotInStore

DOCUMENT = "threshold.json"
NORMAL, ANOMALOUS = "normal", "anomalous"


@dataclass(frozen=True)
class Threshold:
    """A threshold with where it comes from, or None with the reason why there is none."""

    value: float | None
    source: str | None
    """`given`, or what it was calibrated for and on."""
    reason: str | None = None

    def verdict(self, score: float) -> str | None:
        """Judge a score: `anomalous` from the threshold on, `normal` below, None without one."""
        if self.value is None:
            return None
        return ANOMALOUS if score >= self.value else NORMAL


def calibrate(
    store: Objects, guides: AnyDetector, config: ScoreConfig, fpr: float | None
) -> ThresholdDocument:
    """Pick a threshold on the auxiliary images of `guides` and save it beside them.

    Args:
        store: holds the auxiliary token cache.
        guides: whose threshold it becomes, in place of an earlier one.
        config: how images are scored.
        fpr: the share of normal auxiliary images that may be flagged; None takes the threshold of
            the highest F1.

    Returns: the saved document.

    Raises: ConfigError, MetricError (also for a threshold that tells no image from another),
        NotInStore, StoreError.
    """
    from pipeline.detection.load import make_detector, open_fitted_on
    from pipeline.detection.values import compute
    from pipeline.device import resolve_device

    if fpr is not None and not 0 <= fpr < 1:
        raise ConfigError(f"fpr is a share of the normal images in [0, 1), got {fpr}")
    guides.place.store.check_writable()  # not after minutes of scoring
    detector = make_detector(guides, config).to(resolve_device(config.device))
    data = open_fitted_on(store, guides, detector)
    rows = np.arange(data.cache.n_images)
    blocks = np.array_split(rows, max(1, len(rows) // 64))
    made = [compute(detector, data, block, [config.pooling])[1][0] for block in blocks]
    scores = np.concatenate(made)
    labels = data.manifest.labels.astype(np.bool_)
    value = f1max_threshold(scores, labels) if fpr is None else fpr_threshold(scores, labels, fpr)
    require_use(scores, labels, value)
    document = ThresholdDocument(
        guides=guides.id,
        threshold=value,
        criterion="f1max" if fpr is None else "fpr",
        fpr=fpr,
        scoring=scoring_of(config),
        calibrated_on=data.parent,
        measured=measured_at(scores, labels, value),
    )
    place = guides.place
    write_note(place.store, place.name(DOCUMENT), document)
    return document


def scoring_of(config: ScoreConfig) -> Scoring:
    """Give the settings that a score, and so a threshold, depends on."""
    return Scoring(
        pool=config.pool,
        image_score=config.image_score,
        tau=config.tau,
        sigma=config.sigma,
        coefficients=config.coefficients,
    )


def choose_threshold(guides: AnyDetector, config: ScoreConfig, given: float | None) -> Threshold:
    """Take the given threshold, else the one saved with the guides, else none, saying why.

    Raises: ConfigError for a given threshold outside [0, 1], CorruptStore for a torn document.
    """
    if given is not None:
        if not 0 <= given <= 1:
            raise ConfigError(f"threshold is an image score in [0, 1], got {given}")
        return Threshold(given, "given")
    saved = load_threshold(guides)
    remedy = f"`spg-pipe calibrate --guides {guides.id}`"
    if saved is None:
        reason = f"no threshold: give --threshold, or save one with the guides by {remedy}"
        return Threshold(None, None, reason)
    scoring = scoring_of(config)
    if saved.scoring != scoring:
        reason = (
            f"the saved threshold is for {saved.scoring}, these scores are for {scoring}: give "
            f"--threshold, or run {remedy} with the same options"
        )
        return Threshold(None, None, reason)
    return Threshold(saved.threshold, describe(saved))


def load_threshold(guides: AnyDetector) -> ThresholdDocument | None:
    """Read the threshold saved beside the guides, None where there is none.

    Raises: CorruptStore for a file that is torn or belongs to other guides.
    """
    place = guides.place
    try:
        saved = read_note(place.store, place.name(DOCUMENT), ThresholdDocument)
    except NotInStore:
        return None
    except CorruptStore as error:
        raise CorruptStore(f"{error}; calibrate again") from None
    if saved.guides != guides.id:
        raise CorruptStore(
            f"{place.where(DOCUMENT)} belongs to guides {saved.guides!r}; expected {guides.id!r}; "
            "calibrate again"
        )
    return saved


def describe(document: ThresholdDocument) -> str:
    """Say in words where a calibrated threshold comes from."""
    on = f"on {document.calibrated_on.dataset}"
    if document.fpr is None:
        return f"calibrated for F1-max {on}"
    return f"calibrated for a false-positive rate of {document.fpr:g} {on}"


def f1max_threshold(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> float:
    """Give the threshold of the highest F1, midway to the next lower score against noise.

    Args:
        scores: `(n,)` in [0, 1].
        labels: `(n,)`, True for anomalous.

    Raises: MetricError for one class only or scores that are not finite.
    """
    from sklearn.metrics import precision_recall_curve  # takes a second to import

    values = _checked(scores, labels)
    precision, recall, distinct = precision_recall_curve(labels, values)
    f1 = 2 * precision[:-1] * recall[:-1] / (precision[:-1] + recall[:-1]).clip(1e-300)
    # of equally good ones the highest; 1e-12: rounding must not choose
    best = int(np.flatnonzero(f1 >= f1.max() - 1e-12)[-1])
    return float((distinct[best] + distinct[max(best - 1, 0)]) / 2)


def fpr_threshold(scores: NDArray[np.float32], labels: NDArray[np.bool_], fpr: float) -> float:
    """Give the lowest useful threshold that flags at most a share `fpr` of the normal images.

    It lies midway between the highest normal score that must not be flagged and the next higher
    score. With n normal images no rate below 1/n can be told from 0: then none of them is flagged.

    Raises: MetricError as `f1max_threshold`, or when that normal score is 1, the highest there is.
    """
    values = _checked(scores, labels)
    normals = np.sort(values[~labels])[::-1]
    # 1e-9: a rate such as 0.3 of 10 images is 3 images, whatever the last bit of the product
    stay = normals[math.floor(fpr * len(normals) + 1e-9)]
    higher = values[values > stay]
    value = float((stay + higher.min()) / 2) if higher.size else float(np.nextafter(stay, np.inf))
    if value > 1:
        raise MetricError(
            f"no threshold reaches a false-positive rate of {fpr:g}: a normal image scores {stay}"
        )
    return value


def require_use(scores: NDArray[np.float32], labels: NDArray[np.bool_], threshold: float) -> None:
    """Refuse a threshold that flags all of its own images, or none. Raises: MetricError."""
    flagged = scores.astype(np.float64) >= threshold
    if flagged.any() and not flagged.all():
        return
    ranges = [
        f"{part.size} {name} images score {part.min():.4f} to {part.max():.4f}"
        for name, part in (("normal", scores[~labels]), ("anomalous", scores[labels]))
    ]
    raise MetricError(
        f"the threshold {threshold:.4f} flags {'every' if flagged.any() else 'no'} image it was "
        f"chosen on, so it judges nothing: {' and '.join(ranges)}; take other guides, "
        "pooling or sigma, or give a rate with --fpr"
    )


def measured_at(
    scores: NDArray[np.float32], labels: NDArray[np.bool_], threshold: float
) -> Measured:
    """Count what a threshold does to labelled images."""
    flagged = scores.astype(np.float64) >= threshold
    hits, n_flagged = int(flagged[labels].sum()), int(flagged.sum())
    n_anomalous = int(labels.sum())
    return Measured(
        n_normal=len(labels) - n_anomalous,
        n_anomalous=n_anomalous,
        fpr=(n_flagged - hits) / (len(labels) - n_anomalous),
        tpr=hits / n_anomalous,
        precision=hits / n_flagged if n_flagged else None,
        f1=2 * hits / (n_flagged + n_anomalous),
    )


def _checked(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    values = scores.astype(np.float64)
    if not np.isfinite(values).all():
        raise MetricError("some scores are NaN or infinite, so no threshold can be chosen")
    if labels.all() or not labels.any():
        raise MetricError(
            f"all {len(labels)} calibration images are of one class; a threshold needs normal and "
            "anomalous ones, so extract the split that holds both, or give --threshold"
        )
    return values
