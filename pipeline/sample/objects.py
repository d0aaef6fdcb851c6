"""Object-like products of the generated sample: gear, capsule, bottle cap.

Each function draws one piece on its backdrop, `(rng, shape) -> Scene`; what differs between two
calls is the harmless variation of that product: place, turn, scale, colour, surface. Product
coordinates are in units (the shorter image side), relief is in pixels.
"""

import numpy as np
from scipy import ndimage

from pipeline.sample.scene import (
    Plane,
    Rng,
    Scene,
    Shape,
    bevel,
    centred,
    clouds,
    edge,
    mix,
    noise_at,
    paint,
    piece,
    turned,
)


def placed(
    rng: Rng, shape: Shape, *, shift: float, turn: float, scale: float
) -> tuple[Plane, Plane]:
    """Product coordinates (down, right) of one shot: moved, turned and scaled a little."""
    y, x = centred(shape)
    y, x = turned(y - rng.uniform(-shift, shift), x - rng.uniform(-shift, shift), turn)
    zoom = np.float32(rng.uniform(1 - scale, 1 + scale))
    return y / zoom, x / zoom


def mat(rng: Rng, shape: Shape, colour: tuple[float, float, float], grain: float) -> Plane:
    """A plain backdrop with fine grain, `(height, width, 3)`."""
    tone = 1 + grain * clouds(rng, shape, min(shape) / 150) + 0.03 * clouds(rng, shape, 200)
    return np.clip(paint(shape, colour) * tone[..., None] + rng.normal(0, 0.01, 3), 0, 1).astype(
        np.float32
    )


def box(y: Plane, x: Plane, half_height: float, half_width: float, corner: float) -> Plane:
    """Signed distance in units to a rectangle with round corners, centred at the origin."""
    down, right = np.abs(y) - half_height + corner, np.abs(x) - half_width + corner
    outside = np.hypot(np.maximum(down, 0), np.maximum(right, 0))
    return outside + np.minimum(np.maximum(down, right), 0) - corner


def gear(rng: Rng, shape: Shape) -> Scene:
    """A turned steel gear with a keyed bore and five holes, lying on a dark mat."""
    unit = min(shape)
    y, x = placed(rng, shape, shift=0.05, turn=rng.uniform(0, 2 * np.pi), scale=0.07)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    tooth = np.clip(0.5 + 1.1 * np.cos(20 * angle), 0, 1)
    bore = np.minimum(radius - 0.085, box(y + 0.085, x, 0.03, 0.025, 0.004))
    spoke = (angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    holes = np.hypot(radius * np.cos(spoke) - 0.2, radius * np.sin(spoke)) - 0.048
    body = edge(radius - (0.355 + 0.055 * tooth)) * (1 - edge(bore)) * (1 - edge(holes))

    recess = edge(radius - 0.295) * (1 - edge(radius - 0.125))
    turning = noise_at(rng, radius * 190 + 50, 3 * np.cos(angle) + 50)
    tone = rng.uniform(0.56, 0.66) + 0.022 * turning - 0.05 * recess
    tone = tone + 0.02 * clouds(rng, shape, unit / 6, 3)
    steel = np.array([1.0, 0.985, 0.96]) + rng.normal(0, 0.012, 3)
    relief = unit * (0.012 * bevel(body, 0.018 * unit) - 0.006 * ndimage.gaussian_filter(recess, 2))
    backdrop = mat(rng, shape, (0.23, 0.26, 0.30), 0.06)
    return piece(tone[..., None] * steel, relief + 0.12 * turning, 0.10, body, backdrop)


def capsule(rng: Rng, shape: Shape) -> Scene:
    """A two-coloured gelatine capsule on pale paper."""
    unit = min(shape)
    y, x = placed(rng, shape, shift=0.08, turn=rng.normal(0, 0.3), scale=0.06)
    body_half = x > 0.02
    radius = np.where(body_half, 0.178, 0.187).astype(np.float32)
    reach = np.hypot(y, np.maximum(np.abs(x) - 0.29, 0))
    body = edge(reach - 0.178) * body_half + edge(reach - 0.187) * ~body_half

    amber = np.array([0.80, 0.37, 0.13]) + rng.normal(0, 0.025, 3)
    cream = np.array([0.90, 0.86, 0.76]) + rng.normal(0, 0.015, 3)
    albedo = np.where(body_half[..., None], cream, amber).astype(np.float32)
    albedo *= (1 + 0.02 * clouds(rng, shape, unit / 5, 3))[..., None]
    relief = unit * np.sqrt(np.clip(radius**2 - reach**2, 0, None)) * 0.55
    gloss = np.where(reach < radius, 0.42, 0)
    return piece(albedo, relief, gloss, body, mat(rng, shape, (0.74, 0.78, 0.80), 0.02))


def bottle_cap(rng: Rng, shape: Shape) -> Scene:
    """A crown cap from above: fluted skirt, red lacquer, white ring and star."""
    unit = min(shape)
    y, x = placed(rng, shape, shift=0.05, turn=rng.uniform(0, 2 * np.pi), scale=0.06)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    flute = np.cos(21 * angle)
    body = edge(radius - (0.385 + 0.013 * flute))

    red = np.array([0.70, 0.13, 0.12]) + rng.normal(0, 0.025, 3)
    white = np.array([0.93, 0.91, 0.87])
    fold = (angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    star = edge(radius * np.cos(np.pi / 5 * 2 - np.abs(fold)) / 0.31 - 0.145)
    ring = edge(np.abs(radius - 0.232) - 0.012)
    albedo = mix(paint(shape, red), paint(shape, white), np.maximum(star, ring))
    albedo *= (1 + 0.015 * clouds(rng, shape, unit / 8, 3))[..., None]
    skirt = np.clip((radius - 0.285) / 0.1, 0, 1)
    relief = unit * (-0.075 * skirt**1.6 + 0.013 * skirt * flute + 0.004 * (radius < 0.262))
    relief = ndimage.gaussian_filter(relief, 0.006 * unit)
    relief = relief + 0.02 * clouds(rng, shape, unit / 60)
    return piece(albedo, relief, 0.17, body, mat(rng, shape, (0.60, 0.58, 0.54), 0.05))
