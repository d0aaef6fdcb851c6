"""Cached tokens to values, values to maps: a detector's work on rows of a cache, batch by batch.

Each part's values are a product of its own, though one product for all would read the tokens once:
a matrix product's last bit may depend on its width, and then scores would depend on the company.
Between them the tokens of one image stay in the processor's cache, so 25 products of 16 images
(d = 1024) took 23 ms instead of 18, of about a second that scoring these takes in all.

Axes: n images; P patches.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.reader import TokenCache
from pipeline.detection.detector import Detector
from pipeline.detection.parts import Part
from pipeline.inputs import CachedDataset
from pipeline.machine.device import by_halves
from spg_core.guides import unit
from spg_core.pooling import Pooling

IMAGES_A_BATCH = 16

Rows: TypeAlias = NDArray[np.int64]
Maps: TypeAlias = NDArray[np.float32]
"""`(n, height, width)` in [0, 1]."""
Values: TypeAlias = NDArray[np.float32]
"""`(n, P)` in [0, 1]."""


def part_values(
    detectors: Sequence[Detector], data: CachedDataset, rows: Rows, category: str | None = None
) -> dict[str, Values]:
    """Give the values of some rows by each part of the detectors, by its key.

    Args:
        detectors: all on one device.
        data: whose tokens they take; parts on other backbones or layers have caches beside it.
        rows: images.
        category: of these; None where they are of several, or nobody knows.
    """
    parts = {part.key: part for detector in detectors for part in detector.parts}
    caches: dict[str, TokenCache] = {}
    takers: dict[tuple[str, str], list[Part]] = {}
    for part in parts.values():
        cache = data.of(part.spec).cache
        caches[cache.key] = cache
        takers.setdefault((cache.key, part.reads), []).append(part)
    values: dict[str, Values] = {}
    for (key, _), taking in takers.items():
        values |= _values_of_cache(taking, caches[key], rows, category)
    return values


@torch.inference_mode()
def _values_of_cache(
    parts: Sequence[Part], cache: TokenCache, rows: Rows, category: str | None
) -> dict[str, Values]:
    """Read each row once, for all parts that take its patch tokens, or all that take its CLS."""
    device = parts[0].device
    of_patches = parts[0].reads == "patches"
    n_values = cache.tokens_per_image if of_patches else 1
    values = {part.key: np.empty((len(rows), n_values), np.float32) for part in parts}
    for start in range(0, len(rows), IMAGES_A_BATCH):
        chosen = rows[start : start + IMAGES_A_BATCH]
        batch = torch.from_numpy(cache.tokens(chosen) if of_patches else cache.cls(chosen)[:, None])

        def take(here: slice, batch: Tensor = batch, start: int = start) -> None:
            units = unit(batch[here].to(device).float())
            place = slice(start + here.start, start + here.stop)
            for part in parts:
                values[part.key][place] = part.values(units, category).cpu().numpy()

        by_halves("scoring", len(batch), _images_at_once(device), device, take)
    return values


def draw_maps(detector: Detector, values: Mapping[str, Values]) -> Maps:
    """Give the final maps `(n, height, width)` float32 in [0, 1] of values by the parts' keys."""
    [maps] = _drawn(detector, values, 1, lambda *of_parts: [detector.draw(*of_parts)])
    return maps


def draw_part_maps(detector: Detector, values: Mapping[str, Values]) -> list[Maps]:
    """Give likewise the maps of each part that draws, on the scale on which they meet."""
    return _drawn(detector, values, len(detector.drawing), detector.draw_parts)


@torch.inference_mode()
def _drawn(
    detector: Detector,
    values: Mapping[str, Values],
    n_kinds: int,
    draw: Callable[..., Sequence[Tensor]],
) -> list[Maps]:
    """Draw maps of some kinds from the values of all parts."""
    of_parts = [torch.from_numpy(values[part.key]) for part in detector.parts]
    n_images, spec = len(of_parts[0]), detector.spec
    kinds = [np.empty((n_images, spec.height, spec.width), np.float32) for _ in range(n_kinds)]
    device = detector.device

    def take(here: slice) -> None:
        drawn = draw(*(one[here].to(device) for one in of_parts))
        for maps, found in zip(kinds, drawn, strict=True):
            maps[here] = found.cpu().numpy()

    by_halves("drawing maps", n_images, _images_at_once(device), device, take)
    return kinds


def score_images(
    detector: Detector, maps: Maps, values: Mapping[str, Values], pooling: Pooling
) -> NDArray[np.float32]:
    """Give image scores `(n,)` of maps, or of patches, pooled in some way."""
    every = [torch.from_numpy(values[part.key]) for part in detector.parts]
    found = np.empty(len(maps), np.float32)
    for at in range(0, len(maps), IMAGES_A_BATCH):
        one = slice(at, at + IMAGES_A_BATCH)
        of_parts = [each[one] for each in every]
        scores = detector.scores(torch.from_numpy(maps[one]), *of_parts, pooling=pooling)
        found[one] = scores.numpy()
    return found


def compute(
    detector: Detector, data: CachedDataset, rows: Rows, poolings: Sequence[Pooling] = ()
) -> tuple[Maps, list[NDArray[np.float32]]]:
    """Give the final maps `(n, height, width)` in [0, 1] of some rows of any categories, and image
    scores `(n,)` by each pooling.
    """
    maps = np.empty((len(rows), detector.spec.height, detector.spec.width), np.float32)
    scores = [np.empty(len(rows), np.float32) for _ in poolings]
    categories = np.array(data.manifest.select(rows)["category"].to_pylist())
    for category in dict.fromkeys(categories.tolist()):
        chosen = np.flatnonzero(categories == category)
        values = part_values([detector], data, rows[chosen], category)
        maps[chosen] = draw_maps(detector, values)
        for pooling, found in zip(poolings, scores, strict=True):
            found[chosen] = score_images(detector, maps[chosen], values, pooling)
    return maps, scores


def compute_maps(detector: Detector, data: CachedDataset, rows: Rows) -> Maps:
    """Give the final maps alone."""
    return compute(detector, data, rows)[0]


def _images_at_once(device: torch.device) -> int:
    """Give how many images fill a device; on a CPU as many as its cache holds.

    One image of 784 tokens of 1024 takes 3 MB. Cast and scaled one by one, 16 of them took 5 ms,
    all at once 50.
    """
    return 1 if device.type == "cpu" else IMAGES_A_BATCH
