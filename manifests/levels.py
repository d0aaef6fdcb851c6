"""Which levels of a mask's pixels mean a defect.

Masks come as 0 and 255, as class ids (VisA: 0, 1, 2, ..), as palette images, and, saved once as
JPEG or drawn with smooth edges, with every grey in between. Only the last kind is cut at half of
its largest level: what rings faintly around a defect is no defect. All others count wherever they
are not 0.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spg_core.errors import DatasetError

MAX_ID: Final = 31
"""Masks without a larger level hold class ids, not grey."""

FEW: Final = 3
"""So few levels besides 0 are classes, whatever they are."""

MAX_CLASSES: Final = 8
"""Most levels besides 0 of a mask that draws classes in greys: each of them fills areas."""

MOST_MIDDLE: Final = 0.25
"""Largest share of middle greys in a mask: smooth edges have some, a photograph is made of them."""

MIN_CONTRAST: Final = 64
"""Least distance of dark and bright in a mask that was stored with loss."""

Levels = NDArray[np.integer]
"""One number a pixel `(height, width)`, 0 for background."""


def levels_of(image: Image.Image, name: str) -> Levels:
    """Give the levels of a decoded mask; `name` is the file named in errors.

    Grey values, the indices of a palette, the brightest channel of a colour.

    Raises:
        DatasetError: The mode of pixels is not a mask's, or the mask lies in the alpha channel.
    """
    pixels = np.asarray(image)
    match image.mode:
        case "P":
            return _palette_levels(image, pixels)
        case "1" | "L" | "I;16" | "I;16B" | "I;16L" | "I;16N":
            return np.asarray(pixels, dtype=np.uint8 if pixels.dtype.itemsize == 1 else np.uint16)
        case "I":
            return np.asarray(np.abs(pixels.astype(np.int64)))
        case "LA" | "PA":
            return _opaque(pixels[..., :1], pixels[..., 1], name)
        case "RGB":
            return np.asarray(pixels.max(axis=2))
        case "RGBA":
            return _opaque(pixels[..., :3], pixels[..., 3], name)
        case _:
            raise DatasetError(
                f"{name}: pixel mode {image.mode} is not a mask; expected grey, palette or RGB"
            )


def background_of(levels: Levels, *, lossy: bool, name: str) -> int:
    """Give the largest level that is background: 0, or half of the largest in a mask of greys.

    Args:
        levels: As `levels_of` gives them.
        lossy: Whether the file is stored with loss, so that no level of it is exact.
        name: The file named in errors.

    Raises:
        DatasetError: Stored with loss and without a clear dark and bright level.
    """
    present = (
        np.flatnonzero(np.bincount(levels.ravel()))
        if levels.max() < 1 << 16
        else (np.unique(levels))
    )
    least, largest = int(present[0]), int(present[-1])
    half = largest // 2
    if lossy:
        if largest <= 3:
            return largest  # an empty mask, but for the rounding of its blocks
        if largest - least < MIN_CONTRAST or least > half:
            raise DatasetError(
                f"{name}: a mask stored as JPEG has noise, and this one has no clear dark and "
                f"bright level (they go from {least} to {largest}); store masks as PNG"
            )
        return _half(levels, largest, name)
    faint = present[(present > 0) & (present <= half)]
    if largest <= MAX_ID or faint.size == 0 or _are_classes(levels, present, half):
        return 0
    return _half(levels, largest, name)


def _half(levels: Levels, largest: int, name: str) -> int:
    """Give half of the largest level, unless middle greys are everywhere, as in a picture."""
    middle = (4 * levels.astype(np.int64) > largest) & (4 * levels.astype(np.int64) < 3 * largest)
    if np.mean(middle) > MOST_MIDDLE:
        raise DatasetError(f"{name}: greys all over, as in a picture; expected a mask")
    return largest // 2


def _are_classes(levels: Levels, present: NDArray[np.integer], half: int) -> bool:
    """Tell greys that fill areas, as classes do, from those that line edges."""
    n_levels = np.count_nonzero(present)
    if not FEW < n_levels <= MAX_CLASSES:
        return bool(n_levels <= FEW)
    faint = (levels > 0) & (levels <= half)
    inside = faint[:-1, :-1] & (levels[:-1, :-1] == levels[1:, :-1])
    inside &= levels[:-1, :-1] == levels[:-1, 1:]
    return bool(2 * np.count_nonzero(inside) >= np.count_nonzero(faint))


def _palette_levels(image: Image.Image, pixels: NDArray[np.uint8]) -> Levels:
    """Give the indices, unless the palette is plain black and white or a ramp of greys."""
    used = np.flatnonzero(np.bincount(pixels.ravel()))
    colours = np.asarray(image.convert("RGB"))
    brightest, darkest = colours.max(axis=2), colours.min(axis=2)
    is_grey = np.array_equal(brightest, darkest)
    black_and_white = used.size == 2 and is_grey and {*np.unique(brightest)} == {0, 255}
    return brightest if black_and_white or (is_grey and used.size > MAX_ID) else pixels


def _opaque(colours: NDArray[np.uint8], alpha: NDArray[np.uint8], name: str) -> Levels:
    if alpha.min() != alpha.max() and (colours == colours[:1, :1]).all():
        raise DatasetError(
            f"{name}: one colour everywhere, so the mask must be its transparency; store it as grey"
        )
    if colours[alpha == 0].any() and alpha.any():
        raise DatasetError(
            f"{name}: colours under what is transparent, so that nothing tells whether they are "
            "part of the mask; store it as grey"
        )
    return np.asarray(colours.max(axis=2))
