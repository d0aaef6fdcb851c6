"""Score categories block by block with several detectors, whoever the workers are.

    found = score_categories(workers, data, plans, configs)

A category is read once for all detectors. Then each detector in turn has its maps made, counted and
forgotten, so memory does not grow with their number but by the patch probabilities: one category's
maps are held at a time, or as many as there are workers.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipeline.configs import ScoreConfig
from pipeline.detection.values import Rows
from pipeline.inputs import CachedDataset
from pipeline.scoring.blocks import (
    BlockInputs,
    MapPlan,
    Scoring,
    block_counts,
    block_defects,
    block_inputs,
    block_maps,
    block_scores,
    cut_blocks,
    merged_defects,
)
from pipeline.terminal.progress import bar
from pipeline.workers.work import Workers
from spg_core.defect_pixels import DefectPixels
from spg_core.errors import MetricError
from spg_core.image_metrics import ImageCurves, ImageMetrics, image_curves, image_metrics
from spg_core.pixel_counts import NormalCounts, merge_counts
from spg_core.pixel_metrics import (
    AuproDefinition,
    PixelCurves,
    PixelMetrics,
    metrics_from_counts,
    pixel_curves,
)
from spg_core.pooling import Pooling


@dataclass(frozen=True)
class CategoryScores:
    """What one category gave by one config: scores in row order, metrics and curves."""

    category: str
    rows: Rows
    scores: NDArray[np.float32]
    """`(n,)`."""
    scores_by_pooling: dict[Pooling, NDArray[np.float32]]
    """`(n,)` by every pooling of the plan."""
    image: ImageMetrics
    pixel: PixelMetrics
    image_curves: ImageCurves | None
    pixel_curves: PixelCurves | None


@dataclass(frozen=True)
class CategoryInputs:
    """A category that is being read: the handles of its blocks' inputs, in row order."""

    category: str
    rows: Rows
    blocks: list[Rows]
    handles: list[BlockInputs]
    without_mask: int
    """Defective images that have no mask; where there is one, pixels have no metrics."""


@dataclass(frozen=True)
class PendingCategory:
    """A category that is being scored by one plan: the handles of its blocks' results."""

    inputs: CategoryInputs
    scores: list[NDArray[np.float32]]
    defects: DefectPixels | None
    """Of the merged round 1; None where masks are missing."""
    counts: list[NormalCounts]


def score_categories(
    workers: Workers[Scoring],
    data: CachedDataset,
    plans: Sequence[MapPlan],
    configs: Sequence[Sequence[ScoreConfig]],
) -> list[list[list[CategoryScores]] | MetricError]:
    """Score every category by every plan, a few under way at a time.

    Args:
        workers: who, for a `Scoring` of the same data and plans.
        data: the target.
        plans: the maps to make.
        configs: for each plan, those that want something of its maps: a pooling, an AUPRO.

    Returns:
        For each plan a list of categories, each with the scores by each config; or the error where
        its maps are not finite, which is no other plan's concern.

    Raises: StoreError, CorruptStore; ClusterError where workers keep dying.
    """
    found: list[list[list[CategoryScores]]] = [[] for _ in plans]
    failed: dict[int, MetricError] = {}
    under_way: deque[tuple[int, PendingCategory]] = deque()

    @contextmanager
    def own_failure(which: int) -> Iterator[None]:
        try:
            yield
        except MetricError as error:
            failed.setdefault(which, error)

    def finish_first() -> None:
        which, pending = under_way.popleft()
        with own_failure(which):
            scored = finish_category(workers, data, plans[which], configs[which], pending)
            found[which].append(scored)

    with bar("Scoring", data.cache.n_images * len(plans)) as advance:
        for category in data.manifest.categories:
            inputs = submit_inputs(workers, data, category, data.manifest.rows_of(category))
            for which in range(len(plans)):
                if which in failed:
                    continue
                with own_failure(which):
                    under_way.append((which, submit_category(workers, inputs, which, advance)))
                if len(under_way) > workers.in_flight:
                    finish_first()
        while under_way:
            finish_first()
    return [failed.get(which, scored) for which, scored in enumerate(found)]


def submit_inputs(
    workers: Workers[Scoring], data: CachedDataset, category: str, rows: Rows
) -> CategoryInputs:
    """Have the blocks of a category read."""
    without_mask = _defective_without_mask(data, rows)
    blocks = cut_blocks(rows)
    handles = [workers.submit(block_inputs, category, block, not without_mask) for block in blocks]
    return CategoryInputs(category, rows, blocks, handles, without_mask)


def submit_category(
    workers: Workers[Scoring],
    inputs: CategoryInputs,
    which: int,
    advance: Callable[[int], None] = lambda _: None,
) -> PendingCategory:
    """Have the blocks of one category scored by the plan `which`."""
    maps, scores, defects, counts = [], [], [], []
    for block, read in zip(inputs.blocks, inputs.handles, strict=True):
        made = workers.submit(block_maps, read, which)
        maps.append(made)
        scores.append(
            workers.submit(block_scores, read, made, which, then=partial(advance, len(block)))
        )
        if not inputs.without_mask:
            defects.append(workers.submit(block_defects, read, made))
    merged = None
    if not inputs.without_mask:
        merged = workers.submit(merged_defects, defects)
        pairs = zip(inputs.handles, maps, strict=True)
        counts = [workers.submit(block_counts, read, made, merged, which) for read, made in pairs]
    return PendingCategory(inputs, scores, merged, counts)


def finish_category(
    workers: Workers[Scoring],
    data: CachedDataset,
    plan: MapPlan,
    configs: Sequence[ScoreConfig],
    pending: PendingCategory,
) -> list[CategoryScores]:
    """Wait for the blocks of a category and turn them into its metrics, by each config.

    Raises: MetricError for maps that are not finite; ClusterError where workers keep dying.
    """
    labels = data.manifest.labels[pending.inputs.rows]
    pooled = np.concatenate(workers.gather(pending.scores), axis=1)
    by_pooling = dict(zip(plan.poolings, pooled, strict=True))
    partials = None
    if pending.defects is not None:
        [defects] = workers.gather([pending.defects])
        partials = (defects, merge_counts(workers.gather(pending.counts)))
    pixel = {
        aupro: _pixel_metrics(partials, aupro, pending.inputs.without_mask, int(labels.sum()))
        for aupro in plan.aupros
    }
    found = []
    for config in configs:
        scores = by_pooling[config.pooling]
        one = CategoryScores(
            category=pending.inputs.category,
            rows=pending.inputs.rows,
            scores=scores,
            scores_by_pooling=by_pooling,
            image=image_metrics(scores, labels),
            pixel=pixel[config.aupro],
            image_curves=image_curves(scores, labels) if plan.curves else None,
            pixel_curves=pixel_curves(*partials) if plan.curves and partials else None,
        )
        found.append(one)
    return found


def _pixel_metrics(
    partials: tuple[DefectPixels, NormalCounts] | None,
    aupro: str,
    without_mask: int,
    n_defective: int,
) -> PixelMetrics:
    if partials is None:
        reason = f"{without_mask} of {n_defective} defective images have no mask"
        return PixelMetrics(None, None, None, None, reason)
    return metrics_from_counts(*partials, aupro=cast(AuproDefinition, aupro))


def _defective_without_mask(data: CachedDataset, rows: Rows) -> int:
    table = data.manifest.select(rows)
    pairs = zip(table["label"].to_pylist(), table["mask_path"].to_pylist(), strict=True)
    return sum(1 for label, mask in pairs if label == 1 and mask is None)
