"""An anomaly map as pictures: a heatmap, and the map laid over the image it came from.

The colours are inferno on one fixed scale, 0 to 1, never stretched to an image: a good product
stays dark. H x W is the model's input, w x h the image as it was given.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.drawing.mark import png_mark
from pipeline.drawing.palette import N_COLOURS, coloured, levels

_STRONGEST: Final = 0.7
"""How much of the photo the colour hides where the map is 1; at 0 it hides nothing."""


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as a PNG that says who made it."""
    # 1 is four times as fast as Pillow's default and a few percent larger
    picture.save(path, "PNG", compress_level=1, pnginfo=png_mark())


def heatmap(values: NDArray[np.float32]) -> Image.Image:
    """Draw a map `(H, W)` in [0, 1] as a palette image: palette index = round(255 * value)."""
    return coloured(levels(values))


def overlay(photo: Image.Image, values: NDArray[np.float32], least: float = 0.0) -> Image.Image:
    """Lay a map `(H, W)` in [0, 1] over the photo it was computed from, at the photo's own size.

    The model saw the photo squashed to H x W, so the map is stretched back over all of it. The
    colour covers more the higher the value, and leaves the photo as it is up to `least`.

    Args:
        photo: RGB of any size and shape; it is not changed.
        values: the map.
        least: value in [0, 1) from which on colour is laid.
    """
    seen = levels(values).resize(photo.size, Image.Resampling.BILINEAR)
    top = N_COLOURS - 1
    share = [max(0.0, level / top - least) / (1 - least) for level in range(N_COLOURS)]
    return lay_over(photo, seen, [round(_STRONGEST * top * one) for one in share])


def lay_over(photo: Image.Image, seen: Image.Image, cover: Sequence[int]) -> Image.Image:
    """Lay an image of palette levels over a photo of its size.

    Args:
        photo: RGB; it is not changed.
        seen: levels, 0 to 255.
        cover: how much of the photo each of the 256 levels hides, 0 nothing, 255 all.
    """
    return Image.composite(coloured(seen).convert("RGB"), photo, seen.point(list(cover)))
