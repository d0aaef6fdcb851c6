"""Partial pixel results of a block of images, which merge to exactly the one-process result.

Two rounds over the maps, because only the anomalous pixels (about 1 %) are thresholds that matter:

1. `spg_core.defect_pixels` for every block, then `merge_defects`: the anomalous values.
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
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from spg_core.defect_pixels import VALUES_PER_PIECE, DefectPixels
from spg_core.errors import MetricError
from spg_core.sorted_pixels import (
    PIXEL,
    THRESHOLD,
    Counts,
    Keys,
    Maps,
    Masks,
    checked,
    count_sorted,
    key_dtype,
    make_keys,
    sort_with_thresholds,
    write_normal_keys,
)

# Pixels are sorted some images at a time: more takes memory and leaves the processor's cache, less
# sorts the thresholds, which are sorted along each time, more often.
PIXELS_PER_SORT = 1 << 20
PIXELS_PER_THRESHOLD = 4.0


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


def count_normals(
    maps: Maps, masks: Masks, defects: DefectPixels, *, threads: int = 1, clip200: bool = True
) -> NormalCounts:
    """Count the normal pixels of a block around every anomalous value of `defects` (round 2).

    Args:
        maps: `(n, height, width)` as in round 1.
        masks: `(n, height, width)` as in round 1.
        defects: the merged round 1 of *all* blocks, not this block's own.
        threads: how many share the block; the result does not depend on it.
        clip200: whether to count for that AUPRO too; without, good maps take half the time.

    Raises:
        MetricError: as `defect_pixels`.
    """
    return count_normals_of_blocks([(maps, masks)], defects, threads=threads, clip200=clip200)


def count_normals_of_blocks(
    blocks: Iterable[tuple[Maps, Masks]],
    defects: DefectPixels,
    *,
    threads: int = 1,
    clip200: bool = True,
) -> NormalCounts:
    """Count block after block into one result; `count_normals` and `merge_counts` in less memory.

    Raises:
        MetricError: as `defect_pixels`.
    """
    thresholds = _thresholds(defects, clip200=clip200)
    m = thresholds.keys.size
    # Half the memory where it fits; a count never exceeds the number of normal pixels.
    dtype: type[np.integer] = np.uint32 if defects.n_normal < 1 << 32 else np.int64
    counts = NormalCounts(
        below=np.zeros(m, dtype),
        equal=np.zeros(m, dtype),
        clip_above=np.zeros(thresholds.clip_keys.size, np.int64),
        n_normal=0,
    )
    adding, n_normal, n_cuts = Lock(), 0, 0
    rooms: SimpleQueue[Keys] = SimpleQueue()
    for _ in range(threads):
        rooms.put(np.empty(0, thresholds.keys.dtype))

    def count(maps: Maps, truth: NDArray[np.bool_]) -> int:
        room = rooms.get()
        try:
            if room.size <= maps.size + m:
                room = np.empty(maps.size + m + 1, thresholds.keys.dtype)
            return _add_images(counts, adding, maps, truth, thresholds, room)
        finally:
            rooms.put(room)  # or those that come after a failure would wait for ever

    n_pixels = int(max(PIXELS_PER_SORT, PIXELS_PER_THRESHOLD * m)) // threads
    with ThreadPoolExecutor(threads) as pool:  # sorting releases the GIL
        for maps, masks in blocks:
            truth = checked(maps, masks)
            step = max(1, n_pixels // maps[0].size)
            cuts = [slice(start, start + step) for start in range(0, len(maps), step)]
            n_normal += sum(pool.map(count, [maps[c] for c in cuts], [truth[c] for c in cuts]))
            n_cuts += len(cuts)
    for start in range(0, m, VALUES_PER_PIECE):
        here = slice(start, min(start + VALUES_PER_PIECE, m))
        counts.below[here] -= (n_cuts * np.arange(here.start, here.stop)).astype(dtype)
    return replace(counts, n_normal=n_normal)


@dataclass(frozen=True)
class _Thresholds:
    """What the pixels are counted against, as keys of `spg_core.sorted_pixels`."""

    keys: Keys
    """`(m,)` of the distinct anomalous values."""
    lowest: float | None
    """The lowest of these; None where pixels below it must be sorted too."""
    clip_keys: Keys
    """Of the thresholds of `clip200`, or none."""
    upto_clip: NDArray[np.intp]
    """How many anomalous values are at most as large as each of those."""


def _thresholds(defects: DefectPixels, *, clip200: bool) -> _Thresholds:
    values = defects.values[defects.distinct_starts()]
    clip_values = defects.clip_thresholds() if clip200 else np.empty(0, np.float32)
    dtype = key_dtype(defects.lowest)
    return _Thresholds(
        keys=make_keys(values, THRESHOLD, np.empty(values.size, dtype)),
        # A threshold of clip200 may lie below all anomalous values.
        lowest=float(values[0]) if values.size and not clip200 else None,
        clip_keys=make_keys(clip_values, PIXEL, np.empty(clip_values.size, dtype)),
        upto_clip=np.searchsorted(values, clip_values, side="right"),
    )


def _add_images(
    counts: NormalCounts,
    adding: Lock,
    maps: Maps,
    truth: NDArray[np.bool_],
    thresholds: _Thresholds,
    room: Keys,
) -> int:
    """Add the normal pixels of some images to the arrays of `counts`; give their number."""
    if not thresholds.keys.size:
        return truth.size - int(np.count_nonzero(truth))
    pixels = write_normal_keys(maps, truth, room, thresholds.lowest)
    keys = sort_with_thresholds(pixels, thresholds.keys, room)
    dtype = counts.below.dtype.type
    for here, below, tied, n_tied in count_sorted(keys, thresholds.keys, dtype):
        # Thresholds below are counted too; they are taken off again at the end. Sums that pass
        # the largest integer on the way start again at 0, so nothing is lost.
        below += dtype(pixels.n_left_out)
        with adding:
            counts.below[here] += below
            counts.equal[here.start + tied] += n_tied
    n_normal = pixels.n_keys - pixels.n_anomalous + pixels.n_left_out
    n_upto = np.searchsorted(keys, thresholds.clip_keys, side="right") - thresholds.upto_clip
    with adding:
        np.add(counts.clip_above, n_normal - n_upto, out=counts.clip_above)
    return n_normal


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
