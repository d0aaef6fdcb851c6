"""Pixel-level metrics of one category: AUROC, AP, AUPRO and F1-max of its anomaly maps.

PRO is a true-positive rate in which a pixel of region R weighs 1/|R|; so one ranking of the
anomalous pixels among the normal ones gives every number here. "Exact" means every threshold, no
binning; the rounding left is that of adding float64 weights, in an order fixed by the data alone.

Axes: n images; m distinct anomalous values, highest first.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spg_core.curves import Curve, pr_curve, rising_curve, roc_curve
from spg_core.defect_pixels import DefectPixels, defect_pixels, merge_defects
from spg_core.errors import MetricError
from spg_core.pixel_counts import NormalCounts, count_normals_of_blocks
from spg_core.ranking import (
    SCORES_PER_PIECE,
    Ranking,
    auroc,
    average_precision_and_f1max,
)
from spg_core.sorted_pixels import Maps, Masks

AUPRO_FPR_LIMIT = 0.3
AuproDefinition = Literal["exact", "clip200"]
Blocks = Callable[[], Iterable[tuple[Maps, Masks]]]


@dataclass(frozen=True)
class PixelMetrics:
    """Pixel metrics in [0, 1]; None where undefined, and then `reason` says why."""

    auroc: float | None
    ap: float | None
    aupro: float | None
    f1max: float | None
    reason: str | None = None


@dataclass(frozen=True)
class PixelCurves:
    """Curves of the pixel scores for a report; PRO over FPR goes on to FPR 1."""

    roc: Curve
    pr: Curve
    pro: Curve


def pixel_metrics(
    maps: Maps, masks: Masks, *, aupro: AuproDefinition = "exact", threads: int = 1
) -> PixelMetrics:
    """Score the maps of a category.

    Args:
        maps: `(n, height, width)` float32 or float16, finite; any scale.
        masks: `(n, height, width)` uint8 0/1 or bool.
        aupro: "exact" takes every threshold, the trapezoid rule up to FPR 0.3 with an
            interpolated end point, divided by 0.3. "clip200" is the released definition (see
            `clip200_aupro`), which depends on the scale of the maps.
        threads: how many share the work; the result does not depend on it.

    Raises:
        MetricError: shapes or dtypes other than these, NaN or infinite values, no pixels.
    """
    return pixel_metrics_of_blocks(lambda: [(maps, masks)], aupro=aupro, threads=threads)


def pixel_metrics_of_blocks(
    blocks: Blocks, *, aupro: AuproDefinition = "exact", threads: int = 1
) -> PixelMetrics:
    """Score a category that comes as blocks of whole images; the same bits as in one piece.

    Args:
        blocks: gives `(maps, masks)` block after block; called twice, for two passes.
        aupro: as in `pixel_metrics`.
        threads: as in `pixel_metrics`.

    Raises:
        MetricError: as `pixel_metrics`, or no blocks, or another set of blocks the second time.
    """
    defects = merge_defects([defect_pixels(maps, masks) for maps, masks in blocks()])
    clip200 = aupro == "clip200"
    counts = count_normals_of_blocks(blocks(), defects, threads=threads, clip200=clip200)
    return metrics_from_counts(defects, counts, aupro=aupro)


def metrics_from_counts(
    defects: DefectPixels, counts: NormalCounts, *, aupro: AuproDefinition = "exact"
) -> PixelMetrics:
    """Turn merged partial results into the metrics; nothing here depends on the split.

    Raises:
        MetricError: the counts do not cover the images of `defects`, or are not those that this
            definition of AUPRO needs.
    """
    reason = _one_class(defects)
    if reason is not None:
        return PixelMetrics(None, None, None, None, reason)
    ranking = rank_pixels(defects, counts)
    ap, f1max = average_precision_and_f1max(ranking)
    match aupro:
        case "exact":
            area: float | None = exact_aupro(ranking, defects.sizes[::-1])
        case "clip200":
            area, reason = clip200_aupro(defects, counts)
        case _:
            raise MetricError(f"unknown AUPRO definition {aupro!r}, expected 'exact' or 'clip200'")
    return PixelMetrics(auroc(ranking), ap, area, f1max, reason)


def pixel_curves(
    defects: DefectPixels, counts: NormalCounts, n_points: int = 200
) -> PixelCurves | None:
    """Give at most `n_points` points of each pixel curve; None for one class only.

    The areas below them are the metrics: AUROC, AP, and of PRO up to FPR 0.3 the exact AUPRO.

    Raises:
        MetricError: as `metrics_from_counts`.
    """
    if _one_class(defects) is not None:
        return None
    ranking = rank_pixels(defects, counts)
    weights = _region_weights(defects)
    np.cumsum(weights, out=weights)
    pro = rising_curve(ranking, weights, n_points, exact_at=AUPRO_FPR_LIMIT)
    del weights  # millions of them
    return PixelCurves(roc=roc_curve(ranking, n_points), pr=pr_curve(ranking, n_points), pro=pro)


def rank_pixels(defects: DefectPixels, counts: NormalCounts) -> Ranking:
    """Join both rounds, highest value first.

    Raises:
        MetricError: the counts do not cover the images of `defects`.
    """
    starts = defects.distinct_starts()
    if counts.n_normal != defects.n_normal or counts.below.size != starts.size:
        raise MetricError(
            f"{counts.n_normal} normal pixels were counted around {counts.below.size} values, "
            f"expected {defects.n_normal} around {starts.size}; was a block left out or counted "
            "twice, or counted before all defects were merged?"
        )
    anomalous = np.empty(starts.size, counts.below.dtype)
    np.subtract(starts[1:], starts[:-1], out=anomalous[:-1], casting="unsafe")
    anomalous[-1:] = defects.values.size - starts[-1:]
    return Ranking(
        anomalous=anomalous[::-1],
        below=counts.below[::-1],
        equal=counts.equal[::-1],
        n_anomalous=defects.values.size,
        n_normal=defects.n_normal,
    )


def exact_aupro(ranking: Ranking, sizes: NDArray[np.uint32]) -> float:
    """Integrate PRO over FPR up to 0.3, every threshold taken, and divide by 0.3.

    Between two anomalous values PRO stays while FPR grows; where normals tie with an anomalous
    value, both grow along a straight line, which may be cut at the limit.

    Args:
        ranking: of the anomalous pixels.
        sizes: `(anomalous pixels,)` of the region each belongs to, highest value first.
    """
    limit = AUPRO_FPR_LIMIT * ranking.n_normal  # x counts false positives, y sums weights
    area, height, x, seen = 0.0, 0.0, 0.0, 0
    for piece in ranking.pieces():
        ends_at = np.cumsum(piece.anomalous)
        inverse = 1.0 / sizes[seen : seen + int(ends_at[-1])]
        weights = np.add.reduceat(inverse, ends_at - piece.anomalous)
        heights = height + np.cumsum(weights)
        before = np.concatenate([[height], heights[:-1]])
        ends = np.minimum(piece.above + piece.equal, limit)
        starts = np.minimum(piece.above, limit)
        flat = starts - np.concatenate([[x], ends[:-1]])
        sloped = ends - starts
        share = sloped / np.maximum(piece.equal, 1)
        # Not np.dot: BLAS adds in an order that depends on its number of threads.
        rise = 0.5 * share * weights
        area += float((flat * before + sloped * (before + rise)).sum())
        height, x, seen = float(heights[-1]), float(ends[-1]), seen + inverse.size
    # `height` is now the number of regions, up to rounding.
    return (area + (limit - x) * height) / (limit * height)


def clip200_aupro(defects: DefectPixels, counts: NormalCounts) -> tuple[float | None, str | None]:
    """Give the AUPRO of the released code, or None and the reason where it divides by zero.

    200 thresholds in even steps from the smallest value of all maps to the largest, the largest
    left out; a pixel is flagged above a threshold. Points with FPR < 0.3 are kept, their FPRs are
    stretched to [0, 1], and PRO is integrated over them. So the value depends on the scale of the
    maps, and on where the last point below 0.3 happens to lie.

    Raises:
        MetricError: the normals were counted without `clip200`.

    Source: `cal_pro_score` of the CFlow-AD, WinCLIP and AnomalyCLIP line of repositories.
    """
    thresholds = defects.clip_thresholds()
    if counts.clip_above.size != thresholds.size:
        raise MetricError(
            f"pixels were counted above {counts.clip_above.size} thresholds of clip200, expected "
            f"{thresholds.size}; count the normals with clip200=True"
        )
    values = defects.values[defects.distinct_starts()]
    weight_below = np.concatenate([[0.0], np.cumsum(_region_weights(defects)[::-1])])
    first_above = np.searchsorted(values, thresholds, side="right")
    pro = (weight_below[-1] - weight_below[first_above]) / defects.n_regions
    fpr = counts.clip_above / defects.n_normal
    kept = fpr < AUPRO_FPR_LIMIT
    if not kept.any() or fpr[kept].min() == fpr[kept].max():
        return None, (
            "clip200 AUPRO is undefined: its 200 thresholds give fewer than two different "
            f"false-positive rates below {AUPRO_FPR_LIMIT}; use the exact AUPRO"
        )
    fpr, pro = fpr[kept], pro[kept]
    stretched = (fpr - fpr.min()) / (fpr.max() - fpr.min())
    return float(-np.trapezoid(pro, stretched)), None  # thresholds rise, so FPR falls


def _one_class(defects: DefectPixels) -> str | None:
    if not defects.values.size:
        return "no pixel is anomalous, so there is nothing to detect"
    if not defects.n_normal:
        return "every pixel is anomalous, so nothing can be ranked below the anomalies"
    return None


def _region_weights(defects: DefectPixels) -> NDArray[np.float64]:
    """Sum 1 / region size over the pixels of each distinct value, highest value first."""
    starts = defects.distinct_starts()
    weights = np.empty(starts.size)
    for first in range(0, starts.size, SCORES_PER_PIECE):
        here = starts[first : first + SCORES_PER_PIECE]
        last = first + here.size
        end = starts[last] if last < starts.size else defects.values.size
        weights[first:last] = np.add.reduceat(1.0 / defects.sizes[here[0] : end], here - here[0])
    return weights[::-1]
