"""How a threshold is chosen from scores whose labels are known, and what it does to them.

Axes: n images.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.notes import Chosen, Measured, ThresholdRequest
from spg_core.errors import MetricError
from spg_core.false_alarms import promised_threshold, require_promise

Scores = NDArray[np.float32]
"""`(n,)` in [0, 1], larger is more anomalous."""
Labels = NDArray[np.bool_]
"""`(n,)`, True for anomalous."""


def require_choice(labels: Labels, asked: ThresholdRequest, category: str | None = None) -> None:
    """Refuse labels from which no threshold can be chosen, whatever the scores. As `choose`.

    Raises: MetricError.
    """
    where = f"{category}: " if category else ""
    if labels.all():
        raise MetricError(
            f"{where}none of {len(labels)} images is normal; a threshold needs known good parts"
        )
    if asked.confidence is None:
        if not labels.any():
            raise MetricError(
                f"{where}all {len(labels)} images are normal; F1 needs anomalous ones as well, so "
                "take the split that holds both, or --rate"
            )
        return
    try:
        require_promise(int((~labels).sum()), asked.rate, asked.confidence)
    except MetricError as error:
        raise MetricError(f"{where}{error}") from None


def choose(
    scores: Scores, labels: Labels, asked: ThresholdRequest, category: str | None = None
) -> Chosen:
    """Choose a threshold by the highest F1, or by a rate of false alarms promised by the normals.

    Args:
        scores: of the images.
        labels: of the images.
        asked: how; by a rate of None, the least that so many normal images can promise.
        category: all of the images are of this one; None where they may be of several.

    Raises: MetricError where the images do not allow it, or where all of them would be flagged, or
        none although some are anomalous.
    """
    require_choice(labels, asked, category)
    try:
        if asked.criterion == "f1max" or asked.confidence is None:
            value, promised = f1max_threshold(scores, labels), None
        else:
            promise = promised_threshold(scores[~labels], asked.rate, asked.confidence)
            value, promised = promise.threshold, promise.rate
        require_use(scores, labels, value)
    except MetricError as error:
        raise MetricError(f"{category}: {error}" if category else f"{error}") from None
    return Chosen(
        category=category,
        threshold=value,
        promised=promised,
        measured=measured_at(scores, labels, value),
    )


def f1max_threshold(scores: Scores, labels: Labels) -> float:
    """Give the threshold of the highest F1, midway to the next lower score against noise.

    Args:
        scores: of images of both classes.
        labels: of them.

    Raises: MetricError for scores that are not finite.
    """
    from sklearn.metrics import precision_recall_curve  # takes a second to import

    values = scores.astype(np.float64)
    if not np.isfinite(values).all():
        raise MetricError("some scores are NaN or infinite, so no threshold can be chosen")
    precision, recall, distinct = precision_recall_curve(labels, values)
    f1 = 2 * precision[:-1] * recall[:-1] / (precision[:-1] + recall[:-1]).clip(1e-300)
    # of equally good ones the highest; 1e-12: rounding must not choose
    best = int(np.flatnonzero(f1 >= f1.max() - 1e-12)[-1])
    return float((distinct[best] + distinct[max(best - 1, 0)]) / 2)


def require_use(scores: Scores, labels: Labels, threshold: float) -> None:
    """Refuse a threshold that flags all of its own images, or none of some anomalous ones.

    Raises: MetricError.
    """
    flagged = scores.astype(np.float64) >= threshold
    if not flagged.all() and (flagged.any() or not labels.any()):
        return
    ranges = [
        f"{part.size} {name} images score {part.min():.4f} to {part.max():.4f}"
        for name, part in (("normal", scores[~labels]), ("anomalous", scores[labels]))
        if part.size
    ]
    raise MetricError(
        f"the threshold {threshold:.4f} flags {'every' if flagged.any() else 'no'} image it was "
        f"chosen on, so it judges nothing: {' and '.join(ranges)}; take other guides, "
        "pooling or sigma, or another --rate"
    )


def measured_at(scores: Scores, labels: Labels, threshold: float) -> Measured:
    """Count what a threshold does to labelled images, some of them normal."""
    flagged = scores.astype(np.float64) >= threshold
    hits, n_flagged = int(flagged[labels].sum()), int(flagged.sum())
    n_anomalous = int(labels.sum())
    known = n_anomalous > 0
    return Measured(
        n_normal=len(labels) - n_anomalous,
        n_anomalous=n_anomalous,
        fpr=(n_flagged - hits) / (len(labels) - n_anomalous),
        tpr=hits / n_anomalous if known else None,
        precision=hits / n_flagged if known and n_flagged else None,
        f1=2 * hits / (n_flagged + n_anomalous) if known else None,
        normal_scores=_range(scores[~labels]),
        anomalous_scores=_range(scores[labels]) if known else None,
    )


def _range(scores: Scores) -> tuple[float, float]:
    return float(scores.min()), float(scores.max())
