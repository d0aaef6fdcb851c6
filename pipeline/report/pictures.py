"""Arrays to small pictures as `data:` URIs; heatmaps keep one colour scale.

A heatmap is a palette PNG: pixel v of [0, top] takes colour round(255 v / top) of inferno, so the
same colour means the same value wherever it stands in a report.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from pipeline.drawing.palette import INFERNO, N_COLOURS, OUTLINE, coloured, levels
from pipeline.drawing.thumbnail import open_thumbnail
from pipeline.report.data import Tile

MAX_SIDE = 224
"""Longest side of an embedded heatmap or mask, in pixels."""
_TILE_SIDE = 112
_COVER = bytes(range(N_COLOURS))
"""How much of a photo each level of a heatmap hides."""


@dataclass(frozen=True)
class Picture:
    """An embedded picture: its `data:` URI and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The pictures of one image, to be laid over each other."""

    thumbnail: Picture | None
    heatmap: Picture
    mask: Picture | None
    outline: Picture | None
    """Mask and outline are None where nothing is marked."""

    @property
    def size(self) -> Picture:
        """The picture whose size all of them are drawn at."""
        return self.thumbnail or self.heatmap


def draw_layers(
    values: npt.NDArray[np.float32],
    top: float,
    jpeg: bytes | None,
    owner: str,
    mask: npt.NDArray[np.uint8] | None = None,
) -> Layers:
    """Draw `values (h, w)`, 0 to `top`, and what else is known of an image, which `owner` names.

    Raises: CorruptStore as `thumbnail_picture`.
    """
    marked = mask if mask is not None and mask.any() else None
    return Layers(
        thumbnail=None if jpeg is None else thumbnail_picture(jpeg, owner),
        heatmap=heatmap_picture(values, top, see_through=jpeg is not None),
        mask=None if marked is None else mask_picture(marked),
        outline=None if marked is None else outline_picture(marked),
    )


def heatmap_picture(
    values: npt.NDArray[np.float32], top: float, *, see_through: bool = False
) -> Picture:
    """Draw `values (h, w)`, 0 to `top`, in inferno; what lies above `top` takes the last colour.

    To be laid over a photo it is `see_through`: 0 hides nothing, `top` all.
    """
    return _png(coloured(levels(_shrink(values), top)), _COVER if see_through else None)


def draw_tile(values: npt.NDArray[np.float32], jpeg: bytes | None, owner: str) -> Tile:
    """Draw a map `(h, w)` in [0, 1] and the JPEG below it in little room, in few colours.

    Raises: CorruptStore as `open_thumbnail`.
    """
    steps = np.asarray(levels(_shrink(values, _TILE_SIDE // 2))) // 16
    used, places = np.unique(steps, return_inverse=True)
    colours = [17 * int(step) for step in used]  # 16 steps from the first level to the last
    picture = Image.fromarray(places.reshape(steps.shape).astype(np.uint8))
    picture.putpalette(b"".join(INFERNO[3 * n : 3 * n + 3] for n in colours))
    heat = io.BytesIO()
    picture.save(heat, "PNG", optimize=True, transparency=None if jpeg is None else bytes(colours))
    if jpeg is None:
        return Tile(None, heat.getvalue())
    photo, stream = open_thumbnail(jpeg, owner), io.BytesIO()
    photo.thumbnail((_TILE_SIDE, _TILE_SIDE))
    photo.save(stream, "JPEG", quality=75, optimize=True)
    return Tile(stream.getvalue(), heat.getvalue())


def mask_picture(mask: npt.NDArray[np.uint8]) -> Picture:
    """Draw `mask (h, w)` of 0/1, anomalous white on black."""
    return _png(Image.fromarray(_shrink(mask) > 0))


def outline_picture(mask: npt.NDArray[np.uint8]) -> Picture:
    """Draw the border of `mask (h, w)` on a transparent ground, to lay over other pictures."""
    inside = np.pad(_shrink(mask) > 0, 1)
    border = (inside & ~ndimage.binary_erosion(inside))[1:-1, 1:-1]
    image = Image.fromarray(border.astype(np.uint8))
    image.putpalette(bytes(3) + bytes(OUTLINE))
    return _png(image, transparency=0)


def thumbnail_picture(jpeg: bytes, owner: str) -> Picture:
    """Embed a JPEG as it is. Raises: CorruptStore as `open_thumbnail`."""
    return Picture(_uri("jpeg", jpeg), *open_thumbnail(jpeg, owner).size)


def scale_picture() -> Picture:
    """Draw the colour scale itself, lowest on the left: one column a colour."""
    return _png(coloured(Image.fromarray(np.arange(N_COLOURS, dtype=np.uint8)[None])))


def _shrink(
    values: npt.NDArray[np.float32] | npt.NDArray[np.uint8], side: int = MAX_SIDE
) -> npt.NDArray[np.float32]:
    """Average down to at most `side` a side; smaller arrays come back as they are."""
    pixels = np.asarray(values, dtype=np.float32)
    factor = side / max(pixels.shape)
    if factor >= 1:
        return pixels
    height, width = (max(1, round(side * factor)) for side in pixels.shape)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def _png(image: Image.Image, transparency: int | bytes | None = None) -> Picture:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, transparency=transparency)
    return Picture(_uri("png", stream.getvalue()), image.width, image.height)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
