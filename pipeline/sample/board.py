"""The circuit board of the generated sample: a bare board and components that can be missing."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipeline.sample.objects import box, mat, placed
from pipeline.sample.scene import (
    Plane,
    Rng,
    Scene,
    Shape,
    bevel,
    clouds,
    edge,
    mix,
    paint,
    piece,
    turned,
)

_Layer = tuple[Plane, tuple[float, float, float], float]
"""Coverage, colour and height above the board in units."""


class _Part(NamedTuple):
    """One component of the circuit board; lengths in units."""

    kind: str
    y: float
    x: float
    upright: bool = False


_PARTS = (
    _Part("chip", -0.08, 0.06),
    _Part("chip", 0.19, -0.20, upright=True),
    _Part("can", 0.21, 0.20),
    _Part("can", -0.22, -0.27),
    _Part("resistor", -0.25, -0.10),
    _Part("resistor", -0.25, 0.03),
    _Part("capacitor", -0.25, 0.16),
    _Part("resistor", -0.25, 0.28, upright=True),
    _Part("capacitor", -0.06, -0.30, upright=True),
    _Part("resistor", -0.06, -0.20, upright=True),
    _Part("resistor", 0.08, -0.33),
    _Part("capacitor", 0.16, 0.02),
    _Part("resistor", 0.24, 0.02),
    _Part("resistor", 0.05, 0.28, upright=True),
    _Part("capacitor", -0.10, 0.30, upright=True),
    _Part("resistor", 0.30, 0.33, upright=True),
    _Part("capacitor", 0.30, -0.06),
)
"""The same component places on every board: a design, not a nuisance."""


def circuit_board(rng: Rng, shape: Shape) -> Scene:
    """A green board with traces, pads and seventeen components in a fixed layout."""
    unit = min(shape)
    y, x = placed(rng, shape, shift=0.03, turn=rng.normal(0, 0.07), scale=0.04)
    body = edge(box(y, x, 0.38, 0.42, 0.025))
    for corner_y in (-0.34, 0.34):
        for corner_x in (-0.38, 0.38):
            body = body * (1 - edge(np.hypot(y - corner_y, x - corner_x) - 0.018))
    bare = _bare_board(rng, y, x, body, unit)
    albedo, relief = bare.albedo.copy(), bare.relief.copy()
    covers = []
    for part in _PARTS:
        slack_y, slack_x = rng.normal(0, 0.003, 2)
        slack_turn = rng.normal(0, 0.03) + (np.pi / 2 if part.upright else 0)
        # Only the pixels around a component are drawn: five times faster than the whole image.
        near = np.hypot(y - part.y, x - part.x) < 0.16
        window = np.ix_(near.any(axis=1), near.any(axis=0))
        local = turned(y[window] - part.y - slack_y, x[window] - part.x - slack_x, slack_turn)
        cover = np.zeros(shape, dtype=np.float32)
        albedo[window], relief[window], cover[window] = _mounted(
            albedo[window], relief[window], part.kind, *local, unit
        )
        covers.append(cover)
    return replace(bare, albedo=albedo, relief=relief, parts=tuple(covers), bare=bare)


def _bare_board(rng: Rng, y: Plane, x: Plane, body: Plane, unit: int) -> Scene:
    """The board before assembly: solder mask, copper traces, pads, vias, fibre weave."""
    shape = (body.shape[0], body.shape[1])
    copper = np.zeros(shape, dtype=np.float32)
    for part in _PARTS:
        bend = 0.06 if part.upright else -0.05
        knee = np.where(x > part.x, part.y + bend - np.clip(x - part.x, 0, 0.09), part.y + bend)
        trace = edge(np.maximum(np.abs(y - knee) - 0.004, np.abs(x - part.x) - 0.17))
        copper = np.maximum(copper, trace)
    via_y, via_x = (y + 10.03) % 0.13 - 0.065, (x + 10.05) % 0.17 - 0.085
    via = np.hypot(via_y, via_x)
    mask_green = np.array([0.08, 0.33, 0.19]) + rng.normal(0, 0.015, 3)
    albedo = mix(paint(shape, mask_green), paint(shape, mask_green * 1.45), copper)
    weave = np.sin(y * 620) * np.sin(x * 620)
    albedo *= (1 + 0.03 * weave + 0.03 * clouds(rng, shape, unit / 5, 2))[..., None]
    albedo = mix(albedo, paint(shape, (0.70, 0.64, 0.46)), edge(via - 0.011))
    albedo = mix(albedo, paint(shape, (0.10, 0.10, 0.09)), edge(via - 0.005))
    relief = unit * 0.01 * bevel(body, 3) + 0.35 * copper
    return piece(albedo, relief, 0.05, body, mat(rng, shape, (0.66, 0.66, 0.64), 0.03))


def _component(kind: str, y: Plane, x: Plane) -> list[_Layer]:
    """The layers of one component, lowest first, in its own coordinates (units)."""
    match kind:
        case "chip":
            comb = np.abs((x + 10) % 0.03 - 0.015) - 0.006
            pins = edge(np.maximum(comb, box(y, x, 0.085, 0.118, 0)))
            case = edge(box(y, x, 0.066, 0.12, 0.004))
            dot = edge(np.hypot(y - 0.04, x + 0.095) - 0.009)
            return [
                (pins, (0.75, 0.75, 0.73), 0.004),
                (case, (0.13, 0.13, 0.14), 0.016),
                (dot, (0.34, 0.34, 0.34), 0.014),
            ]
        case "can":
            base = edge(box(y, x, 0.062, 0.062, 0.012))
            can = edge(np.hypot(y, x) - 0.055)
            stripe = can * edge(x + 0.03)
            return [
                (base, (0.12, 0.12, 0.12), 0.01),
                (can, (0.78, 0.78, 0.80), 0.03),
                (stripe, (0.14, 0.14, 0.18), 0.03),
            ]
        case "resistor" | "capacitor":
            colour = (0.12, 0.12, 0.13) if kind == "resistor" else (0.70, 0.56, 0.40)
            ends = edge(box(y, x, 0.018, 0.036, 0.003))
            middle = edge(box(y, x, 0.018, 0.023, 0.002))
            return [(ends, (0.82, 0.82, 0.80), 0.009), (middle, colour, 0.011)]
        case _:
            raise AssertionError(f"no component is called {kind}")


def _mounted(
    albedo: Plane, relief: Plane, kind: str, y: Plane, x: Plane, unit: int
) -> tuple[Plane, Plane, Plane]:
    """Solder one component onto a window of the board: new colour and relief, its coverage."""
    shape = (relief.shape[0], relief.shape[1])
    cover = np.zeros(shape, dtype=np.float32)
    for layer, colour, height in _component(kind, y, x):
        albedo = mix(albedo, paint(shape, colour), layer)
        relief = mix(relief, np.full(shape, unit * height, dtype=np.float32), layer)
        cover = np.maximum(cover, layer)
    contact = ndimage.gaussian_filter(cover, 0.008 * unit) * (1 - cover)
    return albedo * (1 - 0.5 * contact)[..., None], relief, cover
