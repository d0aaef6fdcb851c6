"""The products of the generated sample and one photograph of one of them.

Every image has its own random stream, from (seed, category, role, index): adding a category or
images changes no other image.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.configs import Checked
from pipeline.sample.board import circuit_board
from pipeline.sample.defects import DEFECTS, visible_mask
from pipeline.sample.objects import bottle_cap, capsule, gear
from pipeline.sample.scene import Plane, Rng, Scene, Shape, draw_light, render
from pipeline.sample.surfaces import brushed_metal, cloth, granite, leather, wood
from spg_core.fields import Seed

_MIN_MASK_SHARE = 2e-4
_MIN_MEAN_CHANGE = 8 / 255
_MAX_DRAWS = 20


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Checked):
    """What the sample depends on."""

    seed: Seed = 0
    """Start of every random stream."""
    image_size: Annotated[int, Meta(ge=64, le=16384)] = 448
    """Image side of a square product, pixels; other products are wider or larger."""
    images_per_category: Annotated[int, Meta(ge=2, le=100_000)] = 16
    """Test images a category, half of them defective."""
    train_images_per_category: Annotated[int, Meta(ge=1, le=100_000)] = 3
    """Normal training images a category."""


@dataclass(frozen=True)
class Product:
    """One category: what it looks like and what can go wrong with it."""

    draw: Callable[[Rng, Shape], Scene]
    height: float
    """Image height as a multiple of `SampleConfig.image_size`."""
    width: float
    """Image width as a multiple of `SampleConfig.image_size`."""
    defects: tuple[str, ...]
    """Keys of `DEFECTS`; images take them in turn."""

    @property
    def name(self) -> str:
        """The category's name."""
        return self.draw.__name__

    def shape(self, image_size: int) -> Shape:
        """Image height and width in pixels."""
        return round(self.height * image_size), round(self.width * image_size)


AUXILIARY = (
    Product(cloth, 1, 1, ("stain", "hole", "fibre", "bent")),
    Product(wood, 6 / 7, 8 / 7, ("scratch", "stain", "crack", "hole")),
    Product(gear, 1, 1, ("broken", "scratch", "fibre", "bent")),
    Product(circuit_board, 1, 8 / 7, ("missing", "scratch", "stain", "fibre")),
)
TARGET = (
    Product(brushed_metal, 1, 1, ("scratch", "dent", "stain", "spot")),
    Product(granite, 1, 5 / 4, ("crack", "chip", "stain", "fibre")),
    Product(leather, 1, 1, ("scratch", "hole", "spot", "fibre")),
    Product(capsule, 6 / 7, 8 / 7, ("crack", "dent", "spot", "broken")),
    Product(bottle_cap, 8 / 7, 8 / 7, ("scratch", "bent", "dent", "fibre")),
)


@dataclass(frozen=True)
class Shot:
    """One photograph and what is known about it."""

    clean: NDArray[np.uint8]
    """The product without its defect, `(height, width, 3)`, same light and same sensor noise."""
    image: NDArray[np.uint8]
    """What goes into the dataset, `(height, width, 3)`; equal to `clean` where normal."""
    mask: NDArray[np.bool_]
    """Defective pixels `(height, width)`."""


def draw_shot(
    product: Product, config: SampleConfig, role: str, index: int, defect: str | None
) -> Shot:
    """Draw one image; `role` and `index` name its random stream within the category."""
    shape = product.shape(config.image_size)
    stream = zlib.crc32(f"{product.name}/{role}/{index}".encode())
    piece_rng, light_rng, noise_rng, *defect_rngs = np.random.default_rng(
        [config.seed, stream]
    ).spawn(3 + _MAX_DRAWS)
    scene = product.draw(piece_rng, shape)
    light = draw_light(light_rng, shape)
    clean = render(scene, light)
    noise = light.noise * noise_rng.standard_normal(clean.shape, dtype=np.float32)
    if defect is None:
        photo = _to_bytes(clean + noise)
        return Shot(photo, photo, np.zeros(shape, dtype=np.bool_))
    for rng in defect_rngs:
        damaged, drawn = DEFECTS[defect](rng, scene)
        after = render(damaged, light)
        mask = visible_mask(clean, after, drawn)
        # A defect that nobody could see or click on is drawn again, from its own next stream.
        if mask.mean() >= _MIN_MASK_SHARE:
            change = np.abs(after - clean).max(axis=2)
            if change[mask].mean() >= _MIN_MEAN_CHANGE:
                return Shot(_to_bytes(clean + noise), _to_bytes(after + noise), mask)
    raise AssertionError(f"{_MAX_DRAWS} draws of {defect} on {product.name} were all invisible")


def _to_bytes(image: Plane) -> NDArray[np.uint8]:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
