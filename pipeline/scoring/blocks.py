"""Score a category block by block, in this process or by Dask workers, with the same numbers.

A block is 64 images of one category. Its maps are made once and stay where they were made; what
travels are image scores and the partial results of `spg_core.pixel_counts`, which merge exactly.
The functions here are what workers run: each takes the opened `Scoring` first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cache.maps import open_maps
from pipeline.cluster import Workers
from pipeline.cluster_store import StoreTicket, open_ticket
from pipeline.configs import ScoreConfig
from pipeline.device import resolve_device
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.scoring.detector import Detector
from spg_core.anomaly_map import image_scores
from spg_core.image_metrics import ImageCurves, ImageMetrics, image_curves, image_metrics
from spg_core.pixel_counts import (
    DefectPixels,
    NormalCounts,
    count_normals,
    defect_pixels,
    merge_counts,
    merge_defects,
)
from spg_core.pixel_metrics import (
    AuproDefinition,
    PixelCurves,
    PixelMetrics,
    metrics_from_counts,
    pixel_curves,
)

BLOCK_IMAGES = 64
_BATCH_IMAGES = 16

Maps = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CategoryScores:
    """What one category gave: scores in row order, metrics and curves."""

    category: str
    rows: Rows
    scores: NDArray[np.float32]
    """`(n,)`."""
    scores_by_tau: NDArray[np.float32]
    """`(len(taus), n)`, for the tau curve."""
    image: ImageMetrics
    pixel: PixelMetrics
    image_curves: ImageCurves | None
    pixel_curves: PixelCurves | None


@dataclass(frozen=True)
class ScoreJob:
    """What a worker must be told before it can score blocks."""

    ticket: StoreTicket
    dataset: str
    backbone: str
    key: str
    detector: Detector
    """On the CPU."""
    config: ScoreConfig
    taus: tuple[float, ...]
    maps_name: str | None
    """Where in the store the maps are kept, None where they are not."""


@dataclass(frozen=True)
class Scoring:
    """An opened job: everything that a block needs but its rows."""

    data: CachedDataset
    detector: Detector
    config: ScoreConfig
    taus: tuple[float, ...] = ()
    kept_maps: Any = None
    """The array of `cache.maps`, or None."""


def open_score_job(job: ScoreJob) -> Scoring:
    """In a worker: open the store and the cache, put the detector on the worker's device.

    Raises: StoreError, NotInStore, ConfigError: what this worker lacks.
    """
    store = open_ticket(job.ticket)
    return Scoring(
        data=open_dataset(store, job.dataset, job.backbone, job.key),
        detector=job.detector.to(resolve_device(job.config.device)),
        config=job.config,
        taus=job.taus,
        kept_maps=None if job.maps_name is None else open_maps(store, job.maps_name),
    )


@dataclass(frozen=True)
class PendingCategory:
    """A category that is being scored: the handles of its blocks' results, in row order."""

    category: str
    rows: Rows
    scores: list[Any]
    defects: Any
    """Of the merged round 1; None where masks are missing."""
    counts: list[Any]


def submit_category(
    workers: Workers,
    data: CachedDataset,
    category: str,
    rows: Rows,
    advance: Callable[[int], None] = lambda _: None,
) -> PendingCategory:
    """Have the blocks of one category scored.

    Args:
        workers: who, for a `Scoring` of the same data.
        data: the target.
        category: its name.
        rows: its rows.
        advance: called, in any thread, with the images of each block that is done.
    """
    with_pixels = not _defective_without_mask(data, rows)
    blocks = [rows[start : start + BLOCK_IMAGES] for start in range(0, len(rows), BLOCK_IMAGES)]
    maps, scores, defects, counts = [], [], [], []
    for block in blocks:
        made = workers.submit(block_maps, block)
        maps.append(made)
        scores.append(workers.submit(block_scores, made, then=partial(advance, len(block))))
        if with_pixels:
            defects.append(workers.submit(block_defects, block, made))
    merged = workers.submit(merged_defects, defects) if with_pixels else None
    if with_pixels:
        pairs = zip(blocks, maps, strict=True)
        counts = [workers.submit(block_counts, block, made, merged) for block, made in pairs]
    return PendingCategory(category, rows, scores, merged, counts)


def finish_category(
    workers: Workers, data: CachedDataset, config: ScoreConfig, pending: PendingCategory
) -> CategoryScores:
    """Wait for the blocks of a category and turn them into its metrics.

    That last step is done by the process that asked: a worker's BLAS, with fewer threads, would
    add up the same counts to another last bit.

    Raises: MetricError for maps that are not finite; ClusterError where workers keep dying.
    """
    labels = data.manifest.labels[pending.rows]
    by_tau = np.concatenate(workers.gather(pending.scores), axis=1)
    curves = None
    if pending.defects is None:
        without_mask = _defective_without_mask(data, pending.rows)
        reason = f"{without_mask} of {int(labels.sum())} defective images have no mask"
        pixel = PixelMetrics(None, None, None, None, reason)
    else:
        [defects] = workers.gather([pending.defects])
        counts = merge_counts(workers.gather(pending.counts))
        pixel = metrics_from_counts(defects, counts, aupro=cast(AuproDefinition, config.aupro))
        curves = pixel_curves(defects, counts)
    return CategoryScores(
        category=pending.category,
        rows=pending.rows,
        scores=by_tau[0],
        scores_by_tau=by_tau[1:],
        image=image_metrics(by_tau[0], labels),
        pixel=pixel,
        image_curves=image_curves(by_tau[0], labels),
        pixel_curves=curves,
    )


def block_maps(scoring: Scoring, rows: Rows) -> Maps:
    """Make the maps of a block, and keep them in the store where that was asked."""
    maps = compute_maps(scoring.detector, scoring.data, rows)
    if scoring.kept_maps is not None:
        scoring.kept_maps[rows] = maps  # a chunk is an image, so no two blocks share one
    return maps


def block_scores(scoring: Scoring, maps: Maps) -> NDArray[np.float32]:
    """Give image scores `(1 + taus, n)`: by the config's tau, then by each of `taus`."""
    return np.stack([pool(maps, tau) for tau in (scoring.config.tau, *scoring.taus)])


def block_defects(scoring: Scoring, rows: Rows, maps: Maps) -> DefectPixels:
    """Give round 1 of the pixel metrics for a block."""
    return defect_pixels(maps, scoring.data.cache.masks(rows))


def merged_defects(_: Scoring, parts: Sequence[DefectPixels]) -> DefectPixels:
    """Merge round 1 of all blocks."""
    return merge_defects(parts)


def block_counts(scoring: Scoring, rows: Rows, maps: Maps, defects: DefectPixels) -> NormalCounts:
    """Give round 2 of the pixel metrics for a block, against the merged round 1."""
    return count_normals(maps, scoring.data.cache.masks(rows), defects)


@torch.inference_mode()
def compute_maps(detector: Detector, data: CachedDataset, rows: Rows) -> Maps:
    """Give the final maps `(n, height, width)` float32 in [0, 1] of some rows, batch by batch."""
    maps = np.empty((len(rows), detector.spec.height, detector.spec.width), np.float32)
    device = detector.guides.device
    for start in range(0, len(rows), _BATCH_IMAGES):
        batch = rows[start : start + _BATCH_IMAGES]
        tokens = torch.from_numpy(data.cache.tokens(batch)).to(device)
        # rounding can leave a sum of weights at 1 + 1e-7
        maps[start : start + len(batch)] = detector.maps(tokens).clamp_(0, 1).cpu().numpy()
    return maps


def pool(maps: Maps, tau: float) -> NDArray[np.float32]:
    """Give image scores `(n,)` of maps `(n, height, width)`, batch by batch."""
    batches = range(0, len(maps), _BATCH_IMAGES)
    parts = [image_scores(torch.from_numpy(maps[at : at + _BATCH_IMAGES]), tau) for at in batches]
    pooled: NDArray[np.float32] = torch.cat(parts).numpy()
    return pooled


def _defective_without_mask(data: CachedDataset, rows: Rows) -> int:
    table = data.manifest.select(rows)
    pairs = zip(table["label"].to_pylist(), table["mask_path"].to_pylist(), strict=True)
    return sum(1 for label, mask in pairs if label == 1 and mask is None)


def report_taus() -> tuple[float, ...]:
    """Give the pooling temperatures of Fig. 3, from 0.001 to 100."""
    return tuple(float(tau) for tau in np.logspace(-3, 2, 11))
