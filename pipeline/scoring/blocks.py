"""What is done to a block, 64 images of one category, here or by Dask workers, with the same bits.

The tokens and masks of a block are read once, however many detectors score it: what is kept of the
tokens are the values of their parts, 3 kB an image and part, each part's once. Maps, 800 kB an
image, are made of them for one detector at a time and stay where they were made; what travels are
image scores and the partial results of `spg_core.pixel_counts`, which merge exactly. The functions
here are what workers run: each takes the opened `Scoring` first.

Axes: n images of a block; P patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cache.maps import write_maps
from cache.objects import Objects
from pipeline.artifacts.terms import CacheParent
from pipeline.detection.detector import Detector
from pipeline.detection.sources import join
from pipeline.detection.values import Maps, Rows, Values, draw_maps, part_values, score_images
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.machine.device import resolve_device
from spg_core.defect_pixels import DefectPixels, defect_pixels, merge_defects
from spg_core.pixel_counts import NormalCounts, count_normals
from spg_core.pooling import Pooling

BLOCK_IMAGES = 64


@dataclass(frozen=True)
class MapPlan:
    """One set of maps: what makes them, and what is taken from them."""

    detector: Detector
    poolings: tuple[Pooling, ...]
    """Image scores are made by each."""
    aupros: tuple[str, ...] = ("exact",)
    """Pixels are counted for each; clip200 takes up to twice the time."""
    kept_as: tuple[str, ...] = ()
    """Where in the store the maps are kept (`cache.maps`)."""
    curves: bool = False
    """Whether a report wants curves, too."""


@dataclass(frozen=True)
class ScoreJob:
    """What a worker must be told before it can score blocks."""

    caches: Sequence[CacheParent]
    """Of the same images; the first is the main one."""
    plans: Sequence[MapPlan]
    device: str
    """As the configs name it."""


@dataclass(frozen=True)
class Scoring:
    """An opened job: everything that a block needs but its rows."""

    store: Objects
    """Where maps are kept."""
    data: CachedDataset
    plans: Sequence[MapPlan]
    """All on one device."""


@dataclass(frozen=True)
class BlockInputs:
    """What every detector shares of a block."""

    rows: Rows
    values: Mapping[str, Values]
    """Of every part, by its key."""
    masks: NDArray[np.uint8] | None
    """`(n, height, width)` of 0 and 1; None where no pixel metric is wanted."""


def open_scoring(
    store: Objects, data: CachedDataset, plans: Sequence[MapPlan], device: str
) -> Scoring:
    """Put detectors on a device. Raises: ConfigError."""
    where = resolve_device(device)
    placed = [replace(plan, detector=plan.detector.to(where)) for plan in plans]
    return Scoring(store, data, placed)


def open_score_job(store: Objects, job: ScoreJob) -> Scoring:
    """In a worker: open the cache, put the detectors on the worker's device.

    Raises: StoreError, NotInStore, ConfigError: what this worker lacks.
    """
    opened = [open_dataset(store, one.dataset, one.backbone, one.key) for one in job.caches]
    return open_scoring(store, join(opened), job.plans, job.device)


def cut_blocks(rows: Rows) -> list[Rows]:
    """Cut the rows of a category into blocks."""
    return [rows[start : start + BLOCK_IMAGES] for start in range(0, len(rows), BLOCK_IMAGES)]


def block_inputs(scoring: Scoring, category: str, rows: Rows, with_masks: bool) -> BlockInputs:
    """Read a block of a category once, for all detectors."""
    return BlockInputs(
        rows,
        part_values([plan.detector for plan in scoring.plans], scoring.data, rows, category),
        scoring.data.cache.masks(rows) if with_masks else None,
    )


def block_maps(scoring: Scoring, inputs: BlockInputs, which: int) -> Maps:
    """Make the maps of a plan for a block, and keep them in the store where that was asked."""
    plan = scoring.plans[which]
    maps = draw_maps(plan.detector, inputs.values)
    for name in plan.kept_as:
        # a chunk is an image, so no two blocks share one
        write_maps(scoring.store, name, maps_shape(scoring.data), inputs.rows, maps)
    return maps


def maps_shape(data: CachedDataset) -> tuple[int, int, int]:
    """Give images, height and width of all maps of a dataset."""
    return data.cache.n_images, data.spec.height, data.spec.width


def block_scores(
    scoring: Scoring, inputs: BlockInputs, maps: Maps, which: int
) -> NDArray[np.float32]:
    """Give image scores `(poolings, n)` by each pooling of a plan."""
    plan = scoring.plans[which]
    every = [score_images(plan.detector, maps, inputs.values, one) for one in plan.poolings]
    return np.stack(every)


def block_defects(_: Scoring, inputs: BlockInputs, maps: Maps) -> DefectPixels:
    """Give round 1 of the pixel metrics for a block."""
    assert inputs.masks is not None
    return defect_pixels(maps, inputs.masks)


def merged_defects(_: Scoring, parts: Sequence[DefectPixels]) -> DefectPixels:
    """Merge round 1 of all blocks."""
    return merge_defects(parts)


def block_counts(
    scoring: Scoring, inputs: BlockInputs, maps: Maps, defects: DefectPixels, which: int
) -> NormalCounts:
    """Give round 2 of the pixel metrics for a block, against the merged round 1."""
    assert inputs.masks is not None
    clip200 = "clip200" in scoring.plans[which].aupros
    threads = torch.get_num_threads()
    return count_normals(maps, inputs.masks, defects, threads=threads, clip200=clip200)


def report_taus() -> tuple[float, ...]:
    """Give the pooling temperatures of a report's curve, over the range of Fig. 3."""
    return tuple(float(tau) for tau in np.logspace(-3, 2, 11))
