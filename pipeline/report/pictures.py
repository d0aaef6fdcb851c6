"""Arrays to small pictures as `data:` URIs; heatmaps keep one colour scale.

A heatmap is a palette PNG: pixel v of [0, top] takes colour round(255 v / top) of inferno, so the
same colour means the same value wherever it stands in a report.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from pipeline.drawing.palette import N_COLOURS, OUTLINE, coloured, levels
from spg_core.errors import CorruptStore

MAX_SIDE = 224
"""Longest side of an embedded heatmap or mask, in pixels."""
_MAX_THUMBNAIL_SIDE = 4096


@dataclass(frozen=True)
class Picture:
    """An embedded picture: its `data:` URI and its size in pixels."""

    uri: str
    width: int
    height: int


def heatmap_picture(values: npt.NDArray[np.float32], top: float) -> Picture:
    """Draw `values (h, w)`, 0 to `top`, in inferno; what lies above `top` takes the last colour."""
    return _png(coloured(levels(_shrink(values), top)))


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
    """Embed a JPEG as it is, once its header says that it is one of a sensible size.

    Raises:
        CorruptStore: The bytes are no JPEG, or a side is above 4096 pixels; names `owner`.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            width, height = image.size
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CorruptStore(f"the thumbnail of {owner} is no JPEG: {error}") from error
    if max(width, height) > _MAX_THUMBNAIL_SIDE:
        raise CorruptStore(
            f"the thumbnail of {owner} is {width} x {height}, expected at most "
            f"{_MAX_THUMBNAIL_SIDE} pixels a side; extract again with --thumbnails"
        )
    return Picture(_uri("jpeg", jpeg), width, height)


def scale_picture() -> Picture:
    """Draw the colour scale itself, lowest on the left: one column a colour."""
    return _png(coloured(Image.fromarray(np.arange(N_COLOURS, dtype=np.uint8)[None])))


def _shrink(values: npt.NDArray[np.float32] | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Average down to at most `MAX_SIDE` a side; smaller arrays come back as they are."""
    pixels = np.asarray(values, dtype=np.float32)
    factor = MAX_SIDE / max(pixels.shape)
    if factor >= 1:
        return pixels
    height, width = (max(1, round(side * factor)) for side in pixels.shape)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def _png(image: Image.Image, transparency: int | None = None) -> Picture:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, transparency=transparency)
    return Picture(_uri("png", stream.getvalue()), image.width, image.height)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
