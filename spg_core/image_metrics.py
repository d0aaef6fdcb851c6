"""Image-level metrics of one category: AUROC, AP and F1-max of the image scores.

Axes: n images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spg_core.curves import Curve, pr_curve, roc_curve
from spg_core.errors import MetricError
from spg_core.ranking import Ranking, auroc, average_precision_and_f1max


@dataclass(frozen=True)
class ImageMetrics:
    """Image metrics in [0, 1]; None where undefined, and then `reason` says why."""

    auroc: float | None
    ap: float | None
    f1max: float | None
    reason: str | None = None


@dataclass(frozen=True)
class ImageCurves:
    """Curves of the image scores for a report."""

    roc: Curve
    pr: Curve


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> ImageMetrics:
    """Score the ranking of a category's images, exactly; ties count half in AUROC.

    Args:
        scores: `(n,)` finite, larger is more anomalous; any scale.
        labels: `(n,)` 0 normal, 1 anomalous.

    Raises:
        MetricError: NaN or infinite scores, shapes that differ, labels besides 0 and 1, n = 0.
    """
    values, anomalous = _checked(scores, labels)
    reason = _one_class(anomalous)
    if reason is not None:
        return ImageMetrics(None, None, None, reason)
    ranking = _rank(values, anomalous)
    ap, f1max = average_precision_and_f1max(ranking)
    return ImageMetrics(auroc(ranking), ap, f1max)


def image_curves(scores: ArrayLike, labels: ArrayLike) -> ImageCurves | None:
    """Give ROC and precision-recall points of the image scores, None for one class only.

    Raises:
        MetricError: as `image_metrics`.
    """
    values, anomalous = _checked(scores, labels)
    if _one_class(anomalous) is not None:
        return None
    ranking = _rank(values, anomalous)
    return ImageCurves(roc_curve(ranking), pr_curve(ranking))


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise MetricError(
            f"scores have shape {values.shape} and labels {truth.shape}, expected (n,) for both"
        )
    if not values.size:
        raise MetricError("no images to score, expected at least one")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise MetricError(
            f"{bad.size} of {values.size} image scores are NaN or infinite, first at position "
            f"{bad[0]}; a model or a guide that overflows gives such scores"
        )
    if not np.isin(truth, (0, 1)).all():
        raise MetricError(f"labels hold {np.unique(truth).tolist()}, expected only 0 and 1")
    return values, truth.astype(np.bool_)


def _one_class(anomalous: NDArray[np.bool_]) -> str | None:
    if anomalous.all():
        return "every image is anomalous, so nothing can be ranked below the anomalies"
    if not anomalous.any():
        return "no image is anomalous, so there is nothing to detect"
    return None


def _rank(values: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> Ranking:
    normal = np.sort(values[~anomalous])
    distinct, counts = np.unique(values[anomalous], return_counts=True)
    below = np.searchsorted(normal, distinct, side="left")
    equal = np.searchsorted(normal, distinct, side="right") - below
    return Ranking(
        anomalous=counts[::-1],
        below=below[::-1],
        equal=equal[::-1],
        n_anomalous=int(counts.sum()),
        n_normal=normal.size,
    )
