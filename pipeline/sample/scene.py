"""A small renderer for the generated sample: scenes, noise, strokes, light and camera.

A scene is a stack of images of one size: colour, relief, gloss and coverage of the product, and the
backdrop under it. A defect is a change of the scene, so light and shadow fall on it like on the
product. Axes: `height`, `width`; lengths are pixels unless a docstring says `unit`, which is the
shorter image side. Edges are antialiased from distances, strokes by 4-fold supersampling.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Plane = NDArray[np.floating]
"""`(height, width)` or, for colour, `(height, width, 3)`."""
Shape = tuple[int, int]
Rng = np.random.Generator

_SUPERSAMPLING = 4
_GAMMA = 2.2
_NOISE_TABLE = 512
_TABLE_PIXELS_PER_CELL = 4


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What lies in front of the camera, before light."""

    albedo: Plane
    """Product colour `(height, width, 3)`, display values in [0, 1]."""
    relief: Plane
    """Product height above the backdrop `(height, width)`, pixels."""
    gloss: Plane
    """Strength of the highlight `(height, width)`, 0 is matt."""
    body: Plane
    """Product coverage `(height, width)` in [0, 1]; 1 everywhere for a surface."""
    backdrop: Plane
    """Colour under the product `(height, width, 3)`, display values in [0, 1]."""
    parts: tuple[Plane, ...] = ()
    """Coverage of each part that can be missing, `(height, width)` in [0, 1]."""
    bare: "Scene | None" = None
    """The same product without any of its parts; None where it has none."""

    @property
    def shape(self) -> Shape:
        """Image height and width."""
        return self.relief.shape[0], self.relief.shape[1]

    @property
    def unit(self) -> int:
        """The shorter image side, pixels."""
        return min(self.shape)


def piece(
    albedo: Plane, relief: Plane, gloss: Plane | float, body: Plane, backdrop: Plane
) -> Scene:
    """A scene in float32, its colour cut to [0, 1]; one gloss may hold for all of it."""
    return Scene(
        albedo=np.clip(albedo, 0, 1).astype(np.float32),
        relief=relief.astype(np.float32),
        gloss=np.broadcast_to(np.float32(gloss), relief.shape).astype(np.float32),
        body=body.astype(np.float32),
        backdrop=backdrop,
    )


@dataclass(frozen=True, kw_only=True)
class Light:
    """Nuisance of one shot: where the light is and what the camera does to it."""

    direction: tuple[float, float, float]
    """Unit vector to the light: right, down, towards the camera."""
    ambient: float
    """Share of light without a direction, in [0, 1]."""
    gradient: tuple[float, float]
    """Relative brightness from one border to the other: to the right, downwards."""
    tint: tuple[float, float, float]
    """Exposure and white balance, a factor a channel."""
    blur: float
    """Sigma of the lens blur, pixels."""
    noise: float
    """Sigma of the sensor noise, display values."""


def draw_light(rng: Rng, shape: Shape) -> Light:
    """Draw light and camera of one shot."""
    azimuth = np.radians(rng.normal(-125, 25))
    elevation = np.radians(rng.uniform(42, 62))
    exposure = rng.uniform(0.86, 1.1)
    return Light(
        direction=(
            float(np.cos(azimuth) * np.cos(elevation)),
            float(np.sin(azimuth) * np.cos(elevation)),
            float(np.sin(elevation)),
        ),
        ambient=float(rng.uniform(0.35, 0.5)),
        gradient=(float(rng.normal(0, 0.13)), float(rng.normal(0, 0.13))),
        tint=tuple(float(exposure * rng.normal(1, 0.012)) for _ in range(3)),  # type: ignore[arg-type]
        blur=float(rng.uniform(0.3, 0.9) * min(shape) / 448),
        noise=float(rng.uniform(0.004, 0.014)),
    )


def render(scene: Scene, light: Light) -> Plane:
    """Shade a scene: image `(height, width, 3)` float32 in [0, 1], without sensor noise."""
    shape = scene.shape
    body = scene.body
    slope_y, slope_x = np.gradient(scene.relief * body)
    normal_z = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    right, down, up = light.direction
    lambert = np.clip((up - slope_x * right - slope_y * down) * normal_z, 0, None) / up
    half = np.array([right, down, up + 1]) / np.linalg.norm([right, down, up + 1])
    mirror = np.clip((half[2] - slope_x * half[0] - slope_y * half[1]) * normal_z, 0, 1)
    shade = light.ambient + (1 - light.ambient) * lambert
    dropped = 1 - 0.62 * _cast_shadow(body, light) * (1 - body)

    colour = mix(scene.backdrop, scene.albedo, body) ** _GAMMA
    colour *= (shade * dropped)[..., None]
    colour += (scene.gloss * body * mirror**24)[..., None]
    y, x = centred(shape)
    falloff = 1 + 2 * (light.gradient[0] * x + light.gradient[1] * y) - 0.22 * (x**2 + y**2)
    colour *= falloff[..., None] * np.array(light.tint, dtype=np.float32)
    image = np.clip(colour, 0, 1) ** (1 / _GAMMA)
    return ndimage.gaussian_filter(image, (light.blur, light.blur, 0)).astype(np.float32)


def _cast_shadow(body: Plane, light: Light) -> Plane:
    """The soft shadow of a product on its backdrop, `(height, width)` in [0, 1]."""
    if body.min() == 1:
        return np.zeros_like(body)
    reach = 0.022 * min(body.shape) / light.direction[2]
    offset = (-light.direction[1] * reach, -light.direction[0] * reach)
    moved = ndimage.shift(body, offset, order=1, mode="nearest")
    near = ndimage.gaussian_filter(body, 0.008 * min(body.shape))
    far = ndimage.gaussian_filter(moved, 0.018 * min(body.shape))
    shadow: Plane = np.maximum(0.6 * near, far)
    return shadow


def mix(below: Plane, above: Plane, cover: Plane) -> Plane:
    """Lay one plane over another where `cover` `(height, width)` in [0, 1] says so."""
    share = cover[..., None] if below.ndim == 3 else cover
    return below + (above - below) * share


def paint(shape: Shape, colour: ArrayLike) -> Plane:
    """One colour everywhere, `(height, width, 3)`."""
    return np.broadcast_to(np.array(colour, dtype=np.float32), (*shape, 3)).copy()


def centred(shape: Shape) -> tuple[Plane, Plane]:
    """Row and column coordinates from the image centre, in units, `(height, width)` each."""
    height, width = shape
    unit = min(shape)
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) / unit
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / unit
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    return grid_y, grid_x


def turned(y: Plane, x: Plane, angle: float) -> tuple[Plane, Plane]:
    """Coordinates in a frame turned by `angle` radians: down and right, like the input."""
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * y - sine * x, cosine * x + sine * y


def edge(field: Plane) -> Plane:
    """Antialiased coverage in [0, 1] of the region where a smooth field is below 0."""
    slope_y, slope_x = np.gradient(field)
    slope = np.sqrt(slope_x**2 + slope_y**2)
    cover: Plane = np.clip(0.5 - field / np.maximum(slope, 1e-6), 0, 1).astype(np.float32)
    return cover


def bevel(body: Plane, width: float) -> Plane:
    """Relief `(height, width)` that rises from the rim of a body to 1 over `width` pixels."""
    depth = ndimage.distance_transform_edt(body > 0.5).astype(np.float32)
    rise: Plane = np.sin(np.pi / 2 * np.clip(depth / width, 0, 1)).astype(np.float32)
    return rise


def clouds(rng: Rng, shape: Shape, cell: float, octaves: int = 1) -> Plane:
    """Smooth noise `(height, width)`, about unit variance, features of `cell` pixels and finer."""
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        step = max(1.0, cell / 2**octave)
        rows, cols = (int(np.ceil(n / step)) + 4 for n in shape)
        lattice = rng.standard_normal((rows, cols), dtype=np.float32)
        size = (round(cols * step), round(rows * step))
        fine = np.asarray(Image.fromarray(lattice).resize(size, Image.Resampling.BICUBIC))
        top, left = round(1.5 * step), round(1.5 * step)
        total += fine[top : top + shape[0], left : left + shape[1]] * np.float32(0.5**octave)
    return total / np.float32(0.66)


def noise_at(rng: Rng, rows: Plane, cols: Plane) -> Plane:
    """Smooth unit-variance noise read at coordinates given in noise cells (so: stretched, bent)."""
    table = rng.standard_normal((_NOISE_TABLE, _NOISE_TABLE), dtype=np.float32)
    table = ndimage.gaussian_filter(table, _TABLE_PIXELS_PER_CELL / 2, mode="wrap")
    table /= table.std()
    where = np.stack([rows, cols]) * np.float32(_TABLE_PIXELS_PER_CELL)
    return ndimage.map_coordinates(table, where, order=1, mode="grid-wrap", output=np.float32)


def stroke(shape: Shape, points: NDArray[np.float64], widths: NDArray[np.float64]) -> Plane:
    """Antialiased coverage of a line through `points` `(n, 2)` (row, column), `widths` `(n,)`."""
    scale = _SUPERSAMPLING
    canvas = Image.new("L", (shape[1] * scale, shape[0] * scale))
    pen = ImageDraw.Draw(canvas)
    for (y0, x0), (y1, x1), width in zip(points[:-1], points[1:], widths[:-1], strict=True):
        thick = max(1, round(width * scale))
        pen.line((x0 * scale, y0 * scale, x1 * scale, y1 * scale), fill=255, width=thick)
        y, x, reach = y1 * scale, x1 * scale, thick / 2
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
    return np.asarray(canvas.reduce(scale), dtype=np.float32) / 255
