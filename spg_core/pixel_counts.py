"""Partial pixel results of a block of images, which merge to exactly the one-process result.

Two rounds over the maps, because only the anomalous pixels (about 1 %) are thresholds that matter:

1. `defect_pixels(maps, masks)` for every block, then `merge_defects`: the anomalous values.
2. `count_normals(maps, masks, defects)` for every block with the *merged* defects, then
   `merge_counts`: how many normal pixels lie below and at each distinct anomalous value.

Everything in both is a sorted multiset or an integer, so merging is exact, associative and
commutative: any split into blocks (an image is never split) gives the same bits. A partial takes
8 bytes an anomalous pixel plus 16 a distinct anomalous value; it holds NumPy arrays and numbers
only, so Dask sends it as it is. With Dask, keep the maps of a block on its worker as a future
between the rounds, or compute them twice.

Axes: n images; m distinct anomalous values, ascending.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spg_core.errors import MetricError
from spg_core.regions import region_sizes
from spg_core.sorted_pixels import (
    Maps,
    Masks,
    add_counts,
    checked,
    decode,
    encode,
    finite_range,
    sorted_normals,
)

CLIP_STEPS = 200
# A 32 MB copy is sorted at a time: larger is slower per pixel (cache) and takes more memory,
# smaller looks every threshold up more often.
PIXELS_PER_SORT = 1 << 23


@dataclass(frozen=True)
class DefectPixels:
    """Round 1: the anomalous pixels of some images, and what else must be known globally."""

    keys: NDArray[np.uint64]
    """`(anomalous pixels,)` ascending: order-preserving value bits << 32 | region size."""
    n_regions: int
    """8-connected regions."""
    n_normal: int
    """Normal pixels."""
    lowest: float
    """Smallest value of all pixels, a float32."""
    highest: float
    """Largest value of all pixels, a float32."""

    def distinct(self) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Give the distinct anomalous values `(m,)`, ascending, and where each starts in `keys`."""
        ordered = (self.keys >> np.uint64(32)).astype(np.uint32)
        if not ordered.size:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.intp)
        starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
        return decode(ordered[starts]), starts

    def clip_thresholds(self) -> NDArray[np.float32]:
        """Give the 200 or, by float32 rounding, 201 thresholds of `clip200`; none for flat maps."""
        low, high = np.float32(self.lowest), np.float32(self.highest)
        with np.errstate(over="ignore"):
            step = (high - low) / np.float32(CLIP_STEPS)
        if step == 0 or not np.isfinite(step):
            return np.empty(0, dtype=np.float32)
        # float32 arithmetic on purpose: the released code steps through float32 maps this way.
        return np.arange(low, high, step, dtype=np.float32)


@dataclass(frozen=True)
class NormalCounts:
    """Round 2: normal pixels of some images around each distinct anomalous value."""

    below: NDArray[np.int64]
    """`(m,)` strictly below."""
    equal: NDArray[np.int64]
    """`(m,)` exactly at."""
    clip_above: NDArray[np.int64]
    """`(thresholds,)` strictly above each threshold of `clip200`."""
    n_normal: int
    """Normal pixels that were counted."""


def defect_pixels(maps: Maps, masks: Masks) -> DefectPixels:
    """Collect the anomalous pixels of a block (round 1).

    Args:
        maps: `(n, height, width)` float32 or float16, finite; any scale.
        masks: `(n, height, width)` uint8 0/1 or bool.

    Raises:
        MetricError: shapes or dtypes other than these, NaN or infinite values, no pixels.
    """
    truth = checked(maps, masks)
    extremes = [finite_range(one_map, index) for index, one_map in enumerate(maps)]
    keys, n_regions = [], 0
    for one_map, mask in zip(maps, truth, strict=True):
        positions, sizes, n_here = region_sizes(mask)
        values = one_map.reshape(-1)[positions].astype(np.float32)
        keys.append((encode(values) << np.uint64(32)) | sizes.astype(np.uint64))
        n_regions += n_here
    sorted_keys = np.concatenate(keys)
    sorted_keys.sort()
    return DefectPixels(
        keys=sorted_keys,
        n_regions=n_regions,
        n_normal=truth.size - sorted_keys.size,
        lowest=min(low for low, _ in extremes),
        highest=max(high for _, high in extremes),
    )


def merge_defects(parts: Sequence[DefectPixels]) -> DefectPixels:
    """Merge round 1 of several blocks, exactly, in any order.

    Raises:
        MetricError: nothing to merge.
    """
    if not parts:
        raise MetricError("no blocks to merge, expected the defect pixels of at least one")
    keys = np.concatenate([part.keys for part in parts])
    keys.sort()
    return DefectPixels(
        keys=keys,
        n_regions=sum(part.n_regions for part in parts),
        n_normal=sum(part.n_normal for part in parts),
        lowest=min(part.lowest for part in parts),
        highest=max(part.highest for part in parts),
    )


def count_normals(maps: Maps, masks: Masks, defects: DefectPixels) -> NormalCounts:
    """Count the normal pixels of a block around every anomalous value of `defects` (round 2).

    Args:
        maps: `(n, height, width)` as in round 1.
        masks: `(n, height, width)` as in round 1.
        defects: the merged round 1 of *all* blocks, not this block's own.

    Raises:
        MetricError: as `defect_pixels`.
    """
    return count_normals_of_blocks([(maps, masks)], defects)


def count_normals_of_blocks(
    blocks: Iterable[tuple[Maps, Masks]], defects: DefectPixels
) -> NormalCounts:
    """Count block after block into one result; `count_normals` and `merge_counts` in less memory.

    Raises:
        MetricError: as `defect_pixels`.
    """
    thresholds, _ = defects.distinct()
    clip_thresholds = defects.clip_thresholds()
    below = np.zeros(thresholds.size, dtype=np.int64)
    equal = np.zeros(thresholds.size, dtype=np.int64)
    clip_above = np.zeros(clip_thresholds.size, dtype=np.int64)
    n_normal = 0
    for maps, masks in blocks:
        truth = checked(maps, masks)
        images_per_sort = max(1, PIXELS_PER_SORT // maps[0].size)
        for start in range(0, len(maps), images_per_sort):
            images = slice(start, start + images_per_sort)
            normals = sorted_normals(maps[images], truth[images])
            add_counts(normals, thresholds, below, equal)
            clip_above += normals.size - np.searchsorted(normals, clip_thresholds, side="right")
            n_normal += normals.size
    return NormalCounts(below, equal, clip_above, n_normal)


def merge_counts(parts: Sequence[NormalCounts]) -> NormalCounts:
    """Merge round 2 of several blocks, exactly, in any order.

    Raises:
        MetricError: nothing to merge, or blocks counted against different defects.
    """
    if not parts:
        raise MetricError("no blocks to merge, expected the counts of at least one")
    sizes = {(part.below.size, part.clip_above.size) for part in parts}
    if len(sizes) > 1:
        raise MetricError(
            f"blocks were counted against different thresholds (numbers of them: {sorted(sizes)});"
            " count every block against the same merged defects"
        )
    below, equal, clip_above = (
        np.zeros_like(parts[0].below),
        np.zeros_like(parts[0].equal),
        np.zeros_like(parts[0].clip_above),
    )
    for part in parts:
        below += part.below
        equal += part.equal
        clip_above += part.clip_above
    return NormalCounts(below, equal, clip_above, sum(part.n_normal for part in parts))
