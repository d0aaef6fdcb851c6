"""Textured products of the generated sample: cloth, wood, brushed metal, granite, leather.

Each function draws one piece, `(rng, shape) -> Scene`; what differs between two calls is the
harmless variation of that product. `unit` is the shorter image side in pixels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.sample.scene import (
    Plane,
    Rng,
    Scene,
    Shape,
    centred,
    clouds,
    mix,
    noise_at,
    paint,
    piece,
    turned,
)


def _surface(albedo: Plane, relief: Plane, gloss: Plane | float) -> Scene:
    """A scene that fills the image."""
    return piece(albedo, relief, gloss, np.ones_like(relief), paint(relief.shape, 0.5))


def cloth(rng: Rng, shape: Shape) -> Scene:
    """Twill: indigo warp over ecru weft, seen close enough to count the threads."""
    unit = min(shape)
    pitch = unit / rng.uniform(36, 44)
    y, x = turned(*centred(shape), rng.normal(0, 0.12))
    drift = 0.35 * pitch
    rows = (y * unit + drift * clouds(rng, shape, unit / 4)) / pitch + 100
    cols = (x * unit + drift * clouds(rng, shape, unit / 4)) / pitch + 100
    weft, warp = np.floor(rows).astype(int) % 256, np.floor(cols).astype(int) % 256
    across, along = cols % 1 - 0.5, rows % 1 - 0.5
    warp_on_top = (warp + weft) % 4 < 2

    round_warp, round_weft = np.cos(np.pi * across), np.cos(np.pi * along)
    profile = np.where(warp_on_top, round_warp, round_weft).astype(np.float32)
    thread_tone = np.where(
        warp_on_top, rng.normal(0, 0.06, 256)[warp], rng.normal(0, 0.05, 256)[weft]
    )
    dye = np.array([0.20, 0.29, 0.47]) + rng.normal(0, 0.02, 3)
    ecru = np.array([0.72, 0.70, 0.66]) + rng.normal(0, 0.015, 3)
    albedo = np.where(warp_on_top[..., None], dye, ecru).astype(np.float32)
    fuzz = 0.05 * clouds(rng, shape, pitch / 4) + 0.03 * clouds(rng, shape, unit / 3, 2)
    albedo *= (0.55 + 0.45 * profile + thread_tone + fuzz)[..., None]
    relief = pitch * (0.22 * profile + 0.02 * clouds(rng, shape, pitch / 3))
    return _surface(albedo, relief, 0.0)


def wood(rng: Rng, shape: Shape) -> Scene:
    """Oak veneer: rings that wander, pores along the grain, satin varnish."""
    unit = min(shape)
    y, x = turned(*centred(shape), rng.normal(0, 0.1))
    y = y + rng.uniform(-20, 20)
    wander = 0.05 * noise_at(rng, x * 1.6 + 30, y * 1.1) + 0.012 * noise_at(rng, x * 5 + 30, y * 4)
    depth = (y + wander) * rng.uniform(5.5, 8.5)
    depth = depth + 0.5 * noise_at(rng, x * 0.7 + 30, y * 5)
    ring = depth % 1
    early = ring**3 * (1 - np.clip((ring - 0.93) / 0.07, 0, 1))

    fibre = noise_at(rng, x * 9 + 60, (y + wander) * 110)
    pore = np.clip(noise_at(rng, x * 15 + 60, (y + wander) * 120) - 1.2, 0, 1)
    pore = pore * (0.35 + early)
    light = np.array([0.80, 0.63, 0.43]) + rng.normal(0, 0.02, 3)
    dark = np.array([0.55, 0.37, 0.21]) + rng.normal(0, 0.02, 3)
    share = np.clip(0.18 + 0.6 * early + 0.07 * fibre + 0.05 * clouds(rng, shape, unit / 3), 0, 1)
    albedo = mix(paint(shape, light), paint(shape, dark), share.astype(np.float32))
    albedo *= (1 - 0.5 * np.clip(pore, 0, 1))[..., None]
    relief = 0.1 * fibre - 1.0 * pore
    return _surface(albedo, ndimage.gaussian_filter(relief, 0.5), 0.03)


def brushed_metal(rng: Rng, shape: Shape) -> Scene:
    """A brushed steel sheet: fine streaks in one direction and a broad sheen across them."""
    unit = min(shape)
    y, x = turned(*centred(shape), rng.normal(0, 0.08))
    y, x = y + 40, x + 40
    fine = noise_at(rng, y * 210, x * 4)
    coarse = noise_at(rng, y * 70, x * 1.6)
    streaks = 0.65 * fine + 0.5 * coarse
    sheen = np.exp(-(((x - 40 - rng.normal(0, 0.25)) / rng.uniform(0.3, 0.45)) ** 2))
    tone = rng.uniform(0.52, 0.6) + 0.045 * streaks + 0.14 * sheen
    tone = tone + 0.012 * clouds(rng, shape, unit / 3, 2)
    steel = np.array([0.98, 1.0, 1.03]) + rng.normal(0, 0.008, 3)
    return _surface(tone[..., None] * steel, 0.12 * streaks, 0.12)


def granite(rng: Rng, shape: Shape) -> Scene:
    """Polished granite: angular grains of several minerals, most of them finer than a patch."""
    unit = min(shape)
    y, x = turned(*centred(shape), rng.uniform(0, 2 * np.pi))
    albedo = paint(shape, np.array([0.66, 0.63, 0.60]) + rng.normal(0, 0.015, 3))
    tone = 0.05 * clouds(rng, shape, unit / 90) + 0.02 * clouds(rng, shape, unit / 4)
    albedo = albedo * (1 + tone)[..., None]
    grains = np.zeros(shape, dtype=np.float32)
    for cells, share in ((100, 0.5), (64, 0.4), (40, 0.22)):
        cover, colour = _chips(rng, y * cells, x * cells, share, 0.08, cells / unit)
        albedo = mix(albedo, colour, 0.85 * cover)
        grains = np.maximum(grains, cover)
    relief = 0.1 * grains + 0.05 * clouds(rng, shape, unit / 60)
    return _surface(albedo, relief, 0.05 + 0.03 * grains)


def leather(rng: Rng, shape: Shape) -> Scene:
    """Embossed cowhide: pebbles of uneven size between creases, a satin finish."""
    unit = min(shape)
    y, x = turned(*centred(shape), rng.uniform(0, 2 * np.pi))
    cells = rng.uniform(46, 54)
    y = y + 0.006 * clouds(rng, shape, unit / 14, 2)
    x = x + 0.006 * clouds(rng, shape, unit / 14, 2)
    inside, _ = _cells(rng, y * cells, x * cells)
    pebble = np.sin(np.pi / 2 * np.clip(inside / 0.24, 0, 1))
    hide = np.array([0.47, 0.28, 0.17]) + rng.normal(0, 0.018, 3)
    tone = 0.86 + 0.14 * pebble + 0.035 * clouds(rng, shape, unit / 5, 3)
    tone = tone + 0.025 * clouds(rng, shape, unit / 120)
    relief = 0.0035 * unit * pebble + 0.12 * clouds(rng, shape, unit / 100)
    return _surface(paint(shape, hide) * tone[..., None], relief, 0.05)


_SPAN = 256
"""Lattice cells before the Voronoi diagram repeats."""
_CHIP_COLOURS = np.array(
    [
        [0.36, 0.34, 0.33],
        [0.62, 0.43, 0.34],
        [0.93, 0.91, 0.87],
        [0.45, 0.49, 0.45],
        [0.72, 0.60, 0.46],
        [0.55, 0.55, 0.57],
    ],
    dtype=np.float32,
)


def _chips(
    rng: Rng, rows: Plane, cols: Plane, share: float, gap: float, cells_per_pixel: float
) -> tuple[Plane, Plane]:
    """Grains of one size: coverage `(height, width)` and colour `(height, width, 3)`.

    A grain is a cell of `_cells`, shrunk by `gap` cells; `share` of the cells hold one.
    """
    holds_chip = rng.random(_SPAN * _SPAN) < share
    colour = _CHIP_COLOURS[rng.integers(len(_CHIP_COLOURS), size=_SPAN * _SPAN)]
    colour = colour + rng.normal(0, 0.035, (_SPAN * _SPAN, 1)).astype(np.float32)
    inside, owner = _cells(rng, rows, cols)
    cover = np.clip(0.5 + (inside - gap) / cells_per_pixel, 0, 1) * holds_chip[owner]
    return cover.astype(np.float32), colour[owner]


def _cells(rng: Rng, rows: Plane, cols: Plane) -> tuple[Plane, NDArray[np.int64]]:
    """The Voronoi diagram of a jittered lattice, read at `rows`, `cols` in lattice cells.

    Returns:
        How deep a pixel lies inside its cell, in cells, and which of `_SPAN**2` cells that is.
    """
    jitter = rng.uniform(0.08, 0.92, (2, _SPAN, _SPAN)).astype(np.float32)
    row_cell, col_cell = np.floor(rows).astype(int), np.floor(cols).astype(int)
    nearest = np.full(rows.shape, 9, dtype=np.float32)
    second = nearest.copy()
    owner = np.zeros(rows.shape, dtype=np.int64)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            i, j = (row_cell + down) % _SPAN, (col_cell + right) % _SPAN
            site_y = row_cell + down + jitter[0, i, j]
            site_x = col_cell + right + jitter[1, i, j]
            distance = np.hypot(rows - site_y, cols - site_x).astype(np.float32)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            nearest = np.where(closer, distance, nearest)
            owner = np.where(closer, i * _SPAN + j, owner)
    return (second - nearest) / 2, owner
