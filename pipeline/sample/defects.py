"""Defects of the generated sample: each changes a scene and says which pixels it drew on.

A defect is `(rng, scene) -> (scene, shape)`. `shape` `(height, width)` in [0, 1] is where it was
drawn: above 0.5 a pixel is defective by construction, above 0.1 it is defective if it looks
different (`visible_mask`). Sizes are drawn from wide ranges, strengths down to faint ones.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.sample.scene import Plane, Rng, Scene, clouds, mix, paint, stroke
from pipeline.sample.shapes import blob, curve, log_size, place_inside, place_on_rim

VISIBLE_CHANGE = 7 / 255
"""Smallest change of a channel, display values before sensor noise, that counts as visible."""
_NEAR = 0.02
"""Visible change belongs to a defect up to this distance from its shape, units."""

Defect = Callable[[Rng, Scene], tuple[Scene, Plane]]


def visible_mask(clean: Plane, broken: Plane, shape: Plane) -> NDArray[np.bool_]:
    """Say which pixels are defective: drawn for certain, or drawn near and visibly changed.

    `clean` and `broken` are noise-free renderings `(height, width, 3)` in [0, 1] of the same shot.
    """
    reach = max(1, round(_NEAR * min(shape.shape)))
    distance = ndimage.distance_transform_edt(shape <= 0.1)
    changed = (np.abs(broken - clean).max(axis=2) >= VISIBLE_CHANGE) & (distance <= reach)
    mask = changed | (shape > 0.5)
    closed = ndimage.binary_closing(np.pad(mask, 3), iterations=2)[3:-3, 3:-3]
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(closed) if shape.max() > 0.5 else closed
    return filled


def scratch(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """A thin groove that tapers at both ends, brighter or darker than the surface."""
    unit = scene.unit
    path = curve(rng, place_inside(rng, scene, 0.02), unit * rng.uniform(0.15, 0.5), 0.002, 0.01)
    taper = np.sin(np.linspace(0.15, np.pi - 0.15, len(path)))
    cover = stroke(scene.shape, path, taper * unit * rng.uniform(0.006, 0.015)) * scene.body
    strength = rng.uniform(0.3, 0.85)
    target = np.clip(scene.albedo * 1.5 + 0.15, 0, 1) if rng.random() < 0.6 else scene.albedo * 0.35
    albedo = mix(scene.albedo, target, strength * cover)
    groove = 1.6 * strength * ndimage.gaussian_filter(cover, 0.6)
    return replace(scene, albedo=albedo, relief=scene.relief - groove), cover


def crack(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """A jagged dark line with one or two branches."""
    unit = scene.unit
    length = unit * rng.uniform(0.18, 0.5)
    width = unit * rng.uniform(0.006, 0.014)
    trunk = curve(rng, place_inside(rng, scene, 0.05), length, 0.0, 0.22)
    cover = stroke(scene.shape, trunk, np.linspace(width, 0.3 * width, len(trunk)))
    for _ in range(rng.integers(1, 3)):
        root = trunk[rng.integers(8, 36)]
        branch = curve(rng, (root[0], root[1]), length * rng.uniform(0.3, 0.7), 0.0, 0.22)
        branch = branch - branch[0] + root
        fade = np.linspace(0.7 * width, 0.25 * width, len(branch))
        cover = np.maximum(cover, stroke(scene.shape, branch, fade))
    cover = cover * scene.body
    strength = rng.uniform(0.4, 0.9)
    albedo = mix(scene.albedo, scene.albedo * 0.2, strength * cover)
    gap = 1.2 * ndimage.gaussian_filter(cover, 0.6)
    return replace(scene, albedo=albedo, relief=scene.relief - gap), cover


_STAIN_COLOURS = ((0.36, 0.24, 0.13), (0.22, 0.22, 0.24), (0.42, 0.36, 0.18), (0.30, 0.20, 0.24))


def stain(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """A dried liquid: a ragged blotch, darker at its rim, that lets the surface shine through."""
    unit = scene.unit
    radius = log_size(rng, unit, 0.055, 0.17)
    depth = blob(rng, scene.shape, place_inside(rng, scene, 0.04), radius, 0.22)
    cover = np.clip(0.5 + depth / (0.012 * unit), 0, 1) * scene.body
    rim = np.exp(-((depth / (0.12 * radius + 1)) ** 2))
    tint = paint(scene.shape, _STAIN_COLOURS[rng.integers(len(_STAIN_COLOURS))])
    wet = scene.albedo * (0.35 + 0.9 * tint)
    share = rng.uniform(0.35, 0.9) * cover * (0.72 + 0.28 * rim)
    return replace(scene, albedo=mix(scene.albedo, wet, share.astype(np.float32))), cover


_SPOT_COLOURS = ((0.12, 0.30, 0.60), (0.75, 0.18, 0.14), (0.86, 0.70, 0.12), (0.10, 0.10, 0.11))


def spot(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """One to three small specks of foreign colour, such as paint or ink."""
    unit = scene.unit
    row, col = place_inside(rng, scene, 0.03)
    cover = np.zeros(scene.shape, dtype=np.float32)
    for _ in range(rng.integers(1, 4)):
        radius = log_size(rng, unit, 0.016, 0.045)
        depth = blob(rng, scene.shape, (row, col), radius, 0.15)
        cover = np.maximum(cover, np.clip(0.5 + depth, 0, 1) * scene.body)
        row, col = np.array([row, col]) + rng.normal(0, 0.035 * unit, 2)
    ink = paint(scene.shape, _SPOT_COLOURS[rng.integers(len(_SPOT_COLOURS))])
    return replace(scene, albedo=mix(scene.albedo, ink, rng.uniform(0.4, 0.9) * cover)), cover


def hole(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """A hole with a frayed edge, dark inside."""
    unit = scene.unit
    radius = log_size(rng, unit, 0.018, 0.06)
    depth = blob(rng, scene.shape, place_inside(rng, scene, 0.05), radius, 0.2)
    cover = np.clip(0.5 + depth / 1.5, 0, 1) * scene.body
    albedo = mix(scene.albedo, scene.albedo * 0.18, cover)
    relief = scene.relief - 0.012 * unit * np.clip(depth / (0.3 * radius), 0, 1)
    return replace(scene, albedo=albedo, relief=relief, gloss=scene.gloss * (1 - cover)), cover


def chip(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """A flake broken out of a surface: a shallow pit with a rough, pale floor."""
    unit = scene.unit
    radius = log_size(rng, unit, 0.03, 0.085)
    depth = blob(rng, scene.shape, place_inside(rng, scene, 0.05), radius, 0.22)
    cover = np.clip(0.5 + depth / 1.5, 0, 1) * scene.body
    rough = clouds(rng, scene.shape, unit / 60, 3)
    floor = paint(scene.shape, (0.40, 0.36, 0.32)) * (1 + 0.08 * rough)[..., None]
    pit = (0.014 * unit) * np.clip(depth / (0.35 * radius), 0, 1) + 0.5 * rough
    albedo = mix(scene.albedo, floor, rng.uniform(0.5, 0.9) * cover)
    relief = scene.relief - pit * cover
    return replace(scene, albedo=albedo, relief=relief, gloss=scene.gloss * (1 - cover)), cover


def missing(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """One part was never mounted. Needs a scene with parts."""
    bare = scene.bare
    assert bare is not None, "only products made of parts can miss one"
    part = scene.parts[rng.integers(len(scene.parts))]
    # The part also darkened what is around it, so a little more than the part is laid bare.
    cover = np.clip(3 * ndimage.gaussian_filter(part, 0.012 * scene.unit), 0, 1)
    albedo = mix(scene.albedo, bare.albedo, cover)
    return replace(scene, albedo=albedo, relief=mix(scene.relief, bare.relief, cover)), part


def broken(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """A piece of the rim is gone and the backdrop shows."""
    unit = scene.unit
    radius = log_size(rng, unit, 0.04, 0.11)
    depth = blob(rng, scene.shape, place_on_rim(rng, scene), radius, 0.18)
    cover = np.clip(0.5 + depth, 0, 1)
    return replace(scene, body=scene.body * (1 - cover)), cover * scene.body


def dent(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """A smooth hollow: only the light on it changes."""
    unit = scene.unit
    radius = unit * rng.uniform(0.04, 0.09)
    row, col = place_inside(rng, scene, 0.06)
    rows, cols = np.ogrid[: scene.shape[0], : scene.shape[1]]
    stretch = rng.uniform(0.7, 1.4)
    square = ((rows - row) * stretch) ** 2 + ((cols - col) / stretch) ** 2
    hollow = np.exp(-square / radius**2).astype(np.float32)
    depth = radius * rng.uniform(0.18, 0.5)
    shape = np.where(hollow > 0.3, 1, np.where(hollow > 0.05, 0.3, 0)) * scene.body
    return replace(scene, relief=scene.relief - depth * hollow), shape.astype(np.float32)


def bent(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """The product is pushed sideways in one place: pulled threads, a bent tooth."""
    unit = scene.unit
    on_surface = scene.body.min() == 1
    row, col = place_inside(rng, scene, 0.1) if on_surface else place_on_rim(rng, scene)
    rows, cols = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in scene.shape), indexing="ij")
    radius = unit * rng.uniform(0.05, 0.1)
    square = ((rows - row) ** 2 + (cols - col) ** 2) / (1.8 * radius) ** 2
    push = np.clip(1 - square, 0, 1) ** 2
    way, amount = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.3, 0.6)
    where = np.stack([rows + amount * np.sin(way) * push, cols + amount * np.cos(way) * push])

    def pushed(plane: Plane) -> Plane:
        return ndimage.map_coordinates(plane, where, order=1, mode="nearest", output=np.float32)

    colours = np.stack([pushed(scene.albedo[..., c]) for c in range(3)], axis=2)
    # At most 0.45: moving a plain area over itself changes nothing, so only what looks different
    # is a defect.
    shape = 0.45 * (push * amount > 0.002 * unit)
    relief, gloss, body = map(pushed, (scene.relief, scene.gloss, scene.body))
    bent_scene = replace(scene, albedo=colours, relief=relief, gloss=gloss, body=body)
    return bent_scene, shape.astype(np.float32)


_FIBRE_COLOURS = ((0.88, 0.87, 0.84), (0.14, 0.13, 0.14), (0.62, 0.20, 0.18), (0.25, 0.38, 0.62))


def fibre(rng: Rng, scene: Scene) -> tuple[Scene, Plane]:
    """A loose thread or hair that lies on the product and casts a shadow."""
    unit = scene.unit
    path = curve(rng, place_inside(rng, scene, 0.04), unit * rng.uniform(0.15, 0.6), 0.016, 0.03)
    thick = unit * rng.uniform(0.006, 0.014)
    cover = stroke(scene.shape, path, np.full(len(path), thick))
    below = ndimage.shift(cover, 0.7 * thick, order=1)
    shadow = 1 - 0.45 * ndimage.gaussian_filter(below, 0.5 * thick)[..., None]
    colour = np.array(_FIBRE_COLOURS[rng.integers(len(_FIBRE_COLOURS))])
    share = rng.uniform(0.55, 1.0) * cover
    covered = replace(
        scene,
        albedo=mix(scene.albedo * shadow, paint(scene.shape, colour), share),
        backdrop=scene.backdrop * shadow,
        relief=scene.relief + 0.5 * thick * ndimage.gaussian_filter(cover, 0.4),
        body=np.maximum(scene.body, cover),
        gloss=scene.gloss * (1 - cover),
    )
    return covered, cover


_ALL = (scratch, crack, stain, spot, hole, chip, missing, broken, dent, bent, fibre)
DEFECTS: dict[str, Defect] = {defect.__name__: defect for defect in _ALL}
"""Every defect by the name that the target folder gets."""
