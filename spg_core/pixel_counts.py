"""Partial pixel results of a block of images, which merge to exactly the one-process result.

Two rounds over the maps, because only the anomalous pixels (about 1 %) are thresholds that matter:

1. `defect_pixels(maps, masks)` for every block, then `merge_defects`: the anomalous values.
2. `count_normals(maps, masks, defects)` for every block with the *merged* defects, then
   `merge_counts`: how many normal pixels lie below and at each distinct anomalous value.

Everything in both is a sorted multiset or an integer, so merging is exact, associative and
commutative: any split into blocks (an image is never split) gives the same bits. A partial takes
8 bytes an anomalous pixel plus 8 a distinct anomalous value (16 from 2^32 normal pixels on). It
holds NumPy arrays and numbers only, so Dask sends it as it is. With Dask, keep the maps of a block
on its worker as a future between the rounds, or compute them twice.

Axes: n images; m distinct anomalous values, ascending.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from spg_core.errors import MetricError
from spg_core.regions import region_sizes
from spg_core.sorted_pixels import (
    Maps,
    Masks,
    add_counts,
    checked,
    finite_range,
    pack,
    sort_packed,
    sorted_normals,
)

Counts = NDArray[np.integer]  # uint32, or int64 where that could overflow

CLIP_STEPS = 200
# A 64 MB copy is sorted at a time: more takes memory, less looks every threshold up more often.
PIXELS_PER_SORT = 1 << 24


@dataclass(frozen=True)
class DefectPixels:
    """Round 1: the anomalous pixels of some images, and what else must be known globally."""

    values: NDArray[np.float32]
    """`(anomalous pixels,)` ascending; ties in the order of `sizes`."""
    sizes: NDArray[np.uint32]
    """`(anomalous pixels,)` pixels of the region each belongs to."""
    n_regions: int
    """8-connected regions."""
    n_normal: int
    """Normal pixels."""
    lowest: float
    """Smallest value of all pixels, a float32."""
    highest: float
    """Largest value of all pixels, a float32."""

    def distinct_starts(self) -> NDArray[np.intp]:
        """Give where each of the `m` distinct values starts in `values`."""
        if not self.values.size:
            return np.empty(0, dtype=np.intp)
        is_first = np.empty(self.values.size, dtype=np.bool_)
        is_first[0] = True
        np.not_equal(self.values[1:], self.values[:-1], out=is_first[1:])
        return np.flatnonzero(is_first)

    def clip_thresholds(self) -> NDArray[np.float32]:
        """Give the 200 thresholds of `clip200`, 201 by rounding at times; none for flat maps."""
        low, high = np.float32(self.lowest), np.float32(self.highest)
        with np.errstate(over="ignore"):
            step = (high - low) / np.float32(CLIP_STEPS)
        if step == 0 or not np.isfinite(step):
            return np.empty(0, dtype=np.float32)
        # The released code divides in float32, but its np.arange steps and compares in float64
        # (under NumPy 2). A float32 pixel is above a float64 threshold exactly if it is above the
        # threshold rounded down to float32, which needs no float64 copy of the pixels.
        exact = np.arange(low, high, step, dtype=np.float64)
        rounded = exact.astype(np.float32)
        return np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded)


@dataclass(frozen=True)
class NormalCounts:
    """Round 2: normal pixels of some images around each distinct anomalous value."""

    below: Counts
    """`(m,)` strictly below."""
    equal: Counts
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
        keys.append(pack(values, sizes))
        n_regions += n_here
    defect_values, defect_sizes = sort_packed(keys)
    return DefectPixels(
        values=defect_values,
        sizes=defect_sizes,
        n_regions=n_regions,
        n_normal=truth.size - defect_values.size,
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
    if len(parts) == 1:
        return parts[0]
    values, sizes = sort_packed([pack(part.values, part.sizes) for part in parts])
    return DefectPixels(
        values=values,
        sizes=sizes,
        n_regions=sum(part.n_regions for part in parts),
        n_normal=sum(part.n_normal for part in parts),
        lowest=min(part.lowest for part in parts),
        highest=max(part.highest for part in parts),
    )


def count_normals(
    maps: Maps, masks: Masks, defects: DefectPixels, *, threads: int = 1
) -> NormalCounts:
    """Count the normal pixels of a block around every anomalous value of `defects` (round 2).

    Args:
        maps: `(n, height, width)` as in round 1.
        masks: `(n, height, width)` as in round 1.
        defects: the merged round 1 of *all* blocks, not this block's own.
        threads: how many share the block; the result does not depend on it.

    Raises:
        MetricError: as `defect_pixels`.
    """
    return count_normals_of_blocks([(maps, masks)], defects, threads=threads)


def count_normals_of_blocks(
    blocks: Iterable[tuple[Maps, Masks]], defects: DefectPixels, *, threads: int = 1
) -> NormalCounts:
    """Count block after block into one result; `count_normals` and `merge_counts` in less memory.

    Raises:
        MetricError: as `defect_pixels`.
    """
    thresholds = defects.values[defects.distinct_starts()]
    clip_thresholds = defects.clip_thresholds()
    # Half the memory where it fits; a count never exceeds the number of normal pixels.
    dtype: type[np.integer] = np.uint32 if defects.n_normal < 1 << 32 else np.int64
    below: Counts = np.zeros(thresholds.size, dtype=dtype)
    equal: Counts = np.zeros(thresholds.size, dtype=dtype)
    clip_above = np.zeros(clip_thresholds.size, dtype=np.int64)
    adding = Lock()

    def count(maps: Maps, truth: NDArray[np.bool_]) -> int:
        normals = sorted_normals(maps, truth)
        add_counts(normals, thresholds, below, equal, adding)
        above = normals.size - np.searchsorted(normals, clip_thresholds, side="right")
        with adding:
            np.add(clip_above, above, out=clip_above)
        return normals.size

    n_normal = 0
    with ThreadPoolExecutor(threads) as pool:  # sorting and searching release the GIL
        for maps, masks in blocks:
            truth = checked(maps, masks)
            step = max(1, PIXELS_PER_SORT // threads // maps[0].size)
            cuts = [slice(start, start + step) for start in range(0, len(maps), step)]
            n_normal += sum(pool.map(count, [maps[c] for c in cuts], [truth[c] for c in cuts]))
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
    below, equal, clip_above = parts[0].below, parts[0].equal, parts[0].clip_above
    for part in parts[1:]:
        below, equal = below + part.below, equal + part.equal
        clip_above = clip_above + part.clip_above
    return NormalCounts(below, equal, clip_above, sum(part.n_normal for part in parts))
