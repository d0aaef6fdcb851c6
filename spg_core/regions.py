"""Defect regions of a mask: its 8-connected parts and their sizes.

Axes: height and width are pixels of the model's input.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spg_core.errors import MetricError

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def binary_masks(masks: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.bool_]:
    """View masks `(n, height, width)`, uint8 0/1 or bool, as bool without copying where possible.

    Raises:
        MetricError: another dtype or number of axes, or values besides 0 and 1.
    """
    if masks.ndim != 3:
        raise MetricError(f"masks have shape {masks.shape}, expected (n, height, width)")
    if masks.dtype == np.bool_:
        return masks.astype(np.bool_, copy=False)
    if masks.dtype != np.uint8:
        raise MetricError(f"masks have dtype {masks.dtype}, expected uint8 0/1 or bool")
    if masks.size and masks.max() > 1:
        raise MetricError(
            f"masks hold the value {masks.max()}, expected 0 and 1; binarise them first"
        )
    return masks.view(np.bool_)


def region_sizes(
    mask: NDArray[np.bool_],
) -> tuple[tuple[slice, slice], NDArray[np.int64], int]:
    """Find the anomalous pixels of one mask and how large the region around each is.

    Args:
        mask: `(height, width)` bool.

    Returns:
        The box that holds all anomalous pixels, rows and columns; the pixel count `(m,)` of the
        8-connected region of each anomalous pixel, in row-major order; the number of regions.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return (slice(0), slice(0)), np.empty(0, dtype=np.int64), 0
    across = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(mask[across].any(axis=0))
    box = across, slice(int(columns[0]), int(columns[-1]) + 1)
    # Labelling only the box: defects cover about 1 % of an image, labelling is the slowest step
    # per pixel.
    labels, n_regions = ndimage.label(mask[box], structure=EIGHT_NEIGHBOURS)
    region_of_pixel = labels[mask[box]]
    return box, np.bincount(region_of_pixel)[region_of_pixel], n_regions
