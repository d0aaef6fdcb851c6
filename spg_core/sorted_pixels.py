"""Checked, order-preserving and sorted views of anomaly maps: the inner loops of pixel_counts.

Thresholds are sorted together with the pixels that they count, because a sort is the fastest thing
a processor does to a map (AVX-512: 3 to 4 ns a pixel, where a binary search takes 50). An integer
key holds a value's order in its upper bits and, in the lowest, 0 for a threshold and 1 for a pixel:

    make_keys(thresholds, ...)      # once
    write_normal_keys(maps, ...)    # of some images
    sort_with_thresholds(...)
    count_sorted(...)               # where the thresholds ended up says all

Axes: n images; m distinct anomalous values, ascending; k normal pixels of a piece.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spg_core.errors import MetricError
from spg_core.regions import binary_masks

Maps = NDArray[np.float32] | NDArray[np.float16]
Masks = NDArray[np.uint8] | NDArray[np.bool_]

Counts = NDArray[np.integer]  # uint32, or int64 where that could overflow
Keys = NDArray[np.uint32 | np.uint64]

# Sorted keys looked through together, so that what is made of them stays in the cache.
KEYS_PER_LOOK = 1 << 17
# Leaving out the pixels below every threshold costs a quarter of sorting them.
SHARE_WORTH_LEAVING_OUT = 0.3
THRESHOLD, PIXEL = 0, 1  # the lowest bit of a key
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
    return (_ordered(values).astype(np.uint64) << np.uint64(32)) | sizes.astype(np.uint64)


def sort_packed(keys: NDArray[np.uint64]) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Sort packed pixels in place, and give values and sizes `(p,)` apart again."""
    keys.sort()
    sizes = keys.astype(np.uint32)  # the lower half
    ordered = np.empty(keys.size, np.uint32)
    np.right_shift(keys, np.uint64(32), out=ordered, casting="unsafe")
    n_negative = np.searchsorted(ordered, _SIGN)
    np.invert(ordered[:n_negative], out=ordered[:n_negative])
    ordered[n_negative:] ^= _SIGN
    return ordered.view(np.float32), sizes


def key_dtype(lowest: float) -> type[np.uint32] | type[np.uint64]:
    """Give the narrowest type of key: without negative values the sign's bit is to spare."""
    return np.uint32 if lowest >= 0 else np.uint64


def make_keys(values: NDArray[np.float32], lowest_bit: int, out: Keys) -> Keys:
    """Write the keys `(k,)` of values `(k,)` without -0.0, THRESHOLD or PIXEL, and give them."""
    bits = values.view(np.uint32) if out.dtype == np.uint32 else _ordered(values)
    np.left_shift(bits, out.dtype.type(1), out=out)
    if lowest_bit:
        np.bitwise_or(out, out.dtype.type(1), out=out)
    return out


class SortedPart(NamedTuple):
    """What `write_normal_keys` wrote."""

    n_keys: int
    """Keys to be sorted, at the front."""
    n_anomalous: int
    """Those of them larger than the key of any finite value, standing for anomalous pixels."""
    n_left_out: int
    """Normal pixels below every threshold, which need no sorting."""


def write_normal_keys(
    maps: Maps, truth: NDArray[np.bool_], keys: Keys, lowest_threshold: float | None
) -> SortedPart:
    """Write the keys of the pixels whose place among the thresholds is to be found by sorting.

    Args:
        maps: `(n, height, width)`.
        truth: `(n, height, width)`, True for the anomalous pixels, which are not counted.
        keys: at least as long as `maps` has pixels; overwritten from the front.
        lowest_threshold: pixels below may be left out and only be counted; None keeps them.
    """
    in_place = keys.dtype == np.uint32
    room = keys[: maps.size].view(np.float32) if in_place else np.empty(maps.size, np.float32)
    # Adding 0 makes the copy, and turns -0.0 into 0.0: they are equal and must sort as one.
    pixels = np.add(maps.reshape(-1), np.float32(0), out=room)
    anomalous = np.flatnonzero(truth)
    if lowest_threshold is not None and _mostly_below(pixels, lowest_threshold):
        kept = pixels >= lowest_threshold
        n_below = pixels.size - int(np.count_nonzero(kept))
        kept[anomalous] = False  # none of them is below the lowest of them
        n_keys = pixels.size - n_below - anomalous.size
        make_keys(pixels[kept], PIXEL, keys[:n_keys])
        return SortedPart(n_keys, 0, n_below)
    pixels[anomalous] = np.inf
    make_keys(pixels, PIXEL, keys[: pixels.size])
    return SortedPart(pixels.size, anomalous.size, 0)


def _mostly_below(pixels: NDArray[np.float32], lowest_threshold: float) -> bool:
    """Look at every 61st pixel: is it worth while to leave out those below all thresholds?"""
    some = pixels[::61]
    return int(np.count_nonzero(some < lowest_threshold)) > SHARE_WORTH_LEAVING_OUT * some.size


def sort_with_thresholds(pixels: SortedPart, threshold_keys: Keys, room: Keys) -> Keys:
    """Sort the keys that `write_normal_keys` wrote to `room` together with the thresholds' `(m,)`.

    Args:
        pixels: what was written.
        threshold_keys: ascending.
        room: longer than pixels and thresholds together.

    Returns:
        The sorted keys, the first part of `room`: those of normal pixels and of thresholds, and
        one key larger than all of them.
    """
    end = pixels.n_keys + threshold_keys.size
    room[pixels.n_keys : end] = threshold_keys
    room[end] = np.iinfo(room.dtype).max
    room[: end + 1].sort()
    return room[: end + 1 - pixels.n_anomalous]


def count_sorted(
    keys: Keys, threshold_keys: Keys, counts: type[np.integer]
) -> Iterator[tuple[slice, Counts, NDArray[np.intp], Counts]]:
    """Find the thresholds among the keys that `sort_with_thresholds` gave, piece by piece.

    Args:
        keys: as given.
        threshold_keys: ascending.
        counts: the type of what is counted.

    Yields:
        A slice of the thresholds; how many keys, of pixels and of thresholds, lie below each of
        them; which of them tie with pixels, counted from the slice's start; with how many pixels
        each of those.
    """
    one = keys.dtype.type(1)
    first = 0
    for start in range(0, keys.size - 1, KEYS_PER_LOOK):
        is_threshold = (keys[start : start + KEYS_PER_LOOK] & one) == 0
        places = np.flatnonzero(is_threshold)
        here = slice(first, first + places.size)
        first = here.stop
        # A pixel that ties with a threshold has the next larger key, so it sorts right behind it.
        behind = keys[start + 1 : start + 1 + KEYS_PER_LOOK].take(places, mode="clip")
        tied = np.flatnonzero(behind - threshold_keys[here] == one)
        n_tied: Counts = _run_lengths(keys, places[tied] + start + 1, behind[tied]).astype(counts)
        ranks: Counts = places.astype(counts)
        ranks += ranks.dtype.type(start)
        yield here, ranks, tied, n_tied


def _run_lengths(keys: Keys, starts: NDArray[np.intp], values: Keys) -> NDArray[np.intp]:
    """Count the keys `(t,)` that are equal to each of `values`, the first of them at `starts`.

    Of 8 million float32 pixels every second shares its value with another, but few with many: so
    the next two are looked at before the end of a run is searched for.
    """
    lengths = np.ones(starts.size, np.intp)
    going = np.arange(starts.size)
    for step in (1, 2):
        going = going[keys.take(starts[going] + step, mode="clip") == values[going]]
        lengths[going] += 1
    lengths[going] = np.searchsorted(keys, values[going], side="right") - starts[going]
    return lengths


def _ordered(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Give integers that sort as the values do."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)
