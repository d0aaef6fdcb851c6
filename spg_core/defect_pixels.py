"""Round 1 of the pixel metrics: the anomalous pixels of a block; see `spg_core.pixel_counts`.

Axes: n images; m distinct anomalous values, ascending.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spg_core.errors import MetricError
from spg_core.regions import region_sizes
from spg_core.sorted_pixels import Maps, Masks, checked, finite_range, pack, sort_packed

CLIP_STEPS = 200
VALUES_PER_PIECE = 1 << 18


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

    def distinct_starts(self) -> NDArray[np.integer]:
        """Give where each of the `m` distinct values starts in `values`."""
        values = self.values
        is_first = np.ones(values.size, np.bool_)
        np.not_equal(values[1:], values[:-1], out=is_first[1:])
        starts: NDArray[np.integer] = np.empty(
            np.count_nonzero(is_first), np.uint32 if values.size < 1 << 32 else np.int64
        )
        end = 0
        for at in range(0, values.size, VALUES_PER_PIECE):  # as int64 they would take twice that
            here = np.flatnonzero(is_first[at : at + VALUES_PER_PIECE])
            start, end = end, end + here.size
            np.add(here, at, out=starts[start:end], casting="unsafe")
        return starts

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
    keys = np.empty(np.count_nonzero(truth), np.uint64)
    n_regions = end = 0
    for one_map, mask in zip(maps, truth, strict=True):
        box, sizes, n_here = region_sizes(mask)
        values = one_map[box][mask[box]].astype(np.float32)
        start, end = end, end + sizes.size
        keys[start:end] = pack(values, sizes)
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
    values, sizes = sort_packed(np.concatenate([pack(one.values, one.sizes) for one in parts]))
    return DefectPixels(
        values=values,
        sizes=sizes,
        n_regions=sum(part.n_regions for part in parts),
        n_normal=sum(part.n_normal for part in parts),
        lowest=min(part.lowest for part in parts),
        highest=max(part.highest for part in parts),
    )
