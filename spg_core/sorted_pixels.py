"""Checked, order-preserving and sorted views of anomaly maps: the inner loops of pixel_counts.

Axes: n images; m distinct anomalous values, ascending.
"""

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from spg_core.errors import MetricError
from spg_core.regions import binary_masks

Maps = NDArray[np.float32] | NDArray[np.float16]
Masks = NDArray[np.uint8] | NDArray[np.bool_]

# Neighbouring thresholds looked up together, so that their stretch of the sorted pixels is cached.
THRESHOLDS_PER_LOOKUP = 4096
_SIGN = np.uint32(1 << 31)


def checked(maps: Maps, masks: Masks) -> NDArray[np.bool_]:
    """Check dtypes and shapes of a block and give its masks as bool.

    Raises:
        MetricError: maps other than `(n, height, width)` float16/32, masks that do not fit them.
    """
    if maps.dtype not in (np.float32, np.float16):
        raise MetricError(f"maps have dtype {maps.dtype}, expected float32 or float16")
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise MetricError(
            f"maps have shape {maps.shape} and masks {masks.shape}, "
            "expected (n, height, width) for both"
        )
    if not maps.size:
        raise MetricError(f"maps of shape {maps.shape} hold no pixel, expected at least one")
    return binary_masks(masks)


def finite_range(one_map: Maps, index: int) -> tuple[float, float]:
    """Give the smallest and largest value of one map `(height, width)`.

    Raises:
        MetricError: NaN or infinite values.
    """
    low, high = float(one_map.min()), float(one_map.max())
    # NaN passes through min and max, so two reductions check every pixel.
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MetricError(
            f"map {index} of the block holds NaN or infinite values, expected finite ones; "
            "a model or a guide that overflows gives such maps"
        )
    return low, high


def pack(values: NDArray[np.float32], sizes: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Join values and region sizes `(p,)` to integers that sort by value, then by size."""
    # Adding 0 turns -0.0 into 0.0: they are equal and must sort as one.
    bits = (values + np.float32(0)).view(np.uint32)
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (ordered.astype(np.uint64) << np.uint64(32)) | sizes.astype(np.uint64)


def sort_packed(
    parts: list[NDArray[np.uint64]],
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Sort packed pixels of all parts, and give values and sizes `(p,)` apart again.

    Empties `parts`, so that millions of pixels are not held twice.
    """
    keys = np.concatenate(parts)
    parts.clear()
    keys.sort()
    sizes = keys.astype(np.uint32)  # the lower half
    keys >>= np.uint64(32)
    ordered = keys.astype(np.uint32)
    del keys
    return np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).view(np.float32), sizes


def sorted_normals(maps: Maps, truth: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Copy and sort the normal pixels; anomalous ones become +inf and are cut off the end."""
    pixels = maps.reshape(-1).astype(np.float32)
    anomalous = np.flatnonzero(truth)
    pixels[anomalous] = np.inf
    pixels.sort()
    return pixels[: pixels.size - anomalous.size]


def add_counts(
    normals: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    below: NDArray[np.integer],
    equal: NDArray[np.integer],
    adding: Lock,
) -> None:
    """Add to `below` and `equal` the normals under and at each threshold; both sorted."""
    if not thresholds.size:
        return
    firsts = np.searchsorted(normals, thresholds[::THRESHOLDS_PER_LOOKUP])
    ends = np.append(firsts[1:], normals.size)
    for piece, (first, end) in enumerate(zip(firsts, ends, strict=True)):
        here = slice(piece * THRESHOLDS_PER_LOOKUP, (piece + 1) * THRESHOLDS_PER_LOOKUP)
        wanted, stretch = thresholds[here], normals[first:end]
        smaller = np.searchsorted(stretch, wanted)
        under = (smaller + first).astype(below.dtype)
        if not stretch.size:
            with adding:
                np.add(below[here], under, out=below[here])
            continue
        # Exact ties are rare in float32 maps, so the second search is for few values.
        tied = np.flatnonzero(stretch.take(smaller, mode="clip") == wanted)
        upto = np.searchsorted(stretch, wanted[tied], side="right")
        with adding:
            np.add(below[here], under, out=below[here])
            equal[here.start + tied] += (upto - smaller[tied]).astype(equal.dtype)
