"""Where a defect of the generated sample lies and what outline it has; lengths in pixels."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.sample.scene import Plane, Rng, Scene, Shape, clouds


def log_size(rng: Rng, unit: float, low: float, high: float) -> float:
    """A random size from `low` to `high` units, pixels; each octave is equally likely."""
    size: float = unit * np.exp(rng.uniform(np.log(low), np.log(high)))
    return size


def place_inside(rng: Rng, scene: Scene, margin: float) -> tuple[float, float]:
    """A random pixel (row, column) on the product, `margin` units inside where that exists."""
    depth = ndimage.distance_transform_edt(np.pad(scene.body > 0.5, 1))[1:-1, 1:-1]
    inside = np.flatnonzero(depth >= min(margin * scene.unit, 0.6 * depth.max()))
    row, col = np.unravel_index(rng.choice(inside), scene.shape)
    return float(row), float(col)


def place_on_rim(rng: Rng, scene: Scene) -> tuple[float, float]:
    """A random pixel (row, column) on the outer rim of an object."""
    filled = ndimage.binary_fill_holes(scene.body > 0.5)
    rim = np.flatnonzero(filled & ~ndimage.binary_erosion(filled))
    row, col = np.unravel_index(rng.choice(rim), scene.shape)
    return float(row), float(col)


def blob(
    rng: Rng, shape: Shape, centre: tuple[float, float], radius: float, ragged: float
) -> Plane:
    """Depth inside an irregular blob `(height, width)`, pixels: positive inside, about `radius`."""
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    down, right = rows - centre[0], cols - centre[1]
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
    along = np.cos(angle) * right + np.sin(angle) * down
    across = (np.cos(angle) * down - np.sin(angle) * right) / flat
    away = np.hypot(along, across)
    depth = radius * (1 + ragged * clouds(rng, shape, max(2.0, radius), 3)) - away
    # Far from the blob the noise must not open a second one.
    return np.where(away < 1.7 * radius, depth, -min(shape)).astype(np.float32)


def curve(
    rng: Rng, start: tuple[float, float], length: float, wiggle: float, kink: float
) -> NDArray[np.float64]:
    """Points `(n, 2)` (row, column) of a line centred on `start`: smooth turns and kinks."""
    steps = 48
    kinks, turns = rng.normal(0, kink, steps), np.cumsum(rng.normal(0, wiggle, steps))
    heading = rng.uniform(0, 2 * np.pi) + (np.cumsum(kinks) + np.cumsum(turns))
    ahead = np.stack([np.sin(heading), np.cos(heading)], axis=1)
    path: NDArray[np.float64] = np.cumsum(ahead, axis=0) * length / steps
    path += np.array(start) - path[steps // 2]
    return path
