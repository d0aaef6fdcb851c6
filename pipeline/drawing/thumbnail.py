"""Thumbnails of a token cache: JPEGs that may come from anywhere."""

import io

from PIL import Image, UnidentifiedImageError

from spg_core.errors import CorruptStore

_MAX_SIDE = 4096


def open_thumbnail(jpeg: bytes, owner: str) -> Image.Image:
    """Decode a JPEG of a sensible size as RGB.

    Raises: CorruptStore: the bytes are no JPEG, or a side is above 4096 pixels; names `owner`.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            if max(image.size) <= _MAX_SIDE:
                return image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise CorruptStore(f"the thumbnail of {owner} is no JPEG: {error}") from error
    raise CorruptStore(
        f"the thumbnail of {owner} is {image.width} x {image.height}, expected at most {_MAX_SIDE} "
        "pixels a side; extract again with --thumbnails"
    )
