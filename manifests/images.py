"""Open images and masks from disk, one way for the whole pipeline.

Image files are foreign input: only the formats below are tried (Pillow would otherwise also run
Ghostscript on an EPS), the size in the header is checked before pixels are decoded, and whatever
Pillow raises becomes a `DatasetError` that names the file. Of a file with several frames the first
counts. Sixteen-bit colour PNGs reach us as their high bytes, which is a proper scaling; sixteen-bit
grey ones are refused, because their range in use (often 12 bits) cannot be known from the file.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from manifests.schema import MAX_PIXELS
from spg_core.errors import DatasetError

FORMATS: Final = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
LOSSY_FORMATS: Final = ("JPEG", "MPO", "WEBP")
RGB_MODES: Final = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
"""Pillow modes with 8 bits or fewer a channel, which convert to RGB without clipping."""

# Seen from Pillow's decoders on damaged files; Warning only where warnings are made errors.
DECODE_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AttributeError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,
)


def open_image(path: Path, *, exif: bool = False) -> Image.Image:
    """Open an image file as RGB.

    Args:
        path: A PNG, JPEG, BMP, TIFF or WebP file: grey, palette, CMYK, with or without alpha
            (alpha is dropped, not blended).
        exif: Turn the image as its EXIF orientation says. Off by default, as in the released code.

    Raises:
        DatasetError: The file cannot be read or decoded, is sixteen-bit or too large.
    """
    return decode_image(read_bytes(path), str(path), exif=exif)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask file as bool `(height, width)`, True where the raw value is not 0.

    Raises:
        DatasetError: The file cannot be read or decoded, or is stored with loss.
    """
    return decode_mask(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        DatasetError: The file cannot be read or is empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise DatasetError(f"{path}: the file is empty (0 bytes)")
    return data


def decode_image(data: bytes, name: str, *, exif: bool = False) -> Image.Image:
    """Decode image bytes as RGB; `name` is the file named in errors. As `open_image`."""
    try:
        image = _open(data, name)
        if exif:
            image = ImageOps.exif_transpose(image)
        if image.mode not in RGB_MODES:
            raise DatasetError(
                f"{name}: pixel mode {image.mode} has more than 8 bits a channel or is not a "
                f"picture; convert it to 8 bits with the range that your camera uses"
            )
        if image.mode in ("P", "PA"):
            # A palette with transparency: by way of RGBA, or Pillow warns.
            image = image.convert("RGBA")
        return image.convert("RGB")
    except DECODE_ERRORS as error:
        raise DatasetError(f"{name}: cannot be decoded ({_reason(error)})") from error


def decode_mask(data: bytes, name: str) -> NDArray[np.bool_]:
    """Decode mask bytes as bool `(height, width)`; `name` is the file named in errors.

    Anomalous is a raw value other than 0: class ids as in VisA, 255 as in MVTec AD, the index of a
    palette image (not its colour). Of a colour mask, any channel other than 0; alpha is ignored.
    """
    try:
        image = _open(data, name)
        if image.format in LOSSY_FORMATS:
            raise DatasetError(
                f"{name}: a mask stored as {image.format} has noise that would count as defect; "
                f"store masks without loss, as PNG"
            )
        pixels = np.asarray(image)
        match image.mode:
            case "1" | "L" | "P" | "I" | "I;16" | "I;16B" | "I;16L" | "I;16N":
                mask = pixels != 0
            case "LA" | "PA":
                mask = pixels[..., 0] != 0
            case "RGB" | "RGBA":
                mask = (pixels[..., :3] != 0).any(axis=2)
            case _:
                raise DatasetError(
                    f"{name}: pixel mode {image.mode} is not a mask; expected grey, palette or RGB"
                )
        return np.asarray(mask, dtype=np.bool_)
    except DECODE_ERRORS as error:
        raise DatasetError(f"{name}: cannot be decoded ({_reason(error)})") from error


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a mask from its native size to the model's input size.

    Pillow's bilinear filter on float32: when it shrinks, it averages over the covered area, so an
    output pixel says which share of it is anomalous; more than half makes it anomalous. A defect
    may vanish by that, which the caller counts. The released code does the same on 8-bit pixels,
    where exactly half rounds up; METHOD.md's "> 0.5" does not.

    Args:
        mask: Anomalous pixels, bool `(native height, native width)`.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        uint8 `(height, width)`, 0 or 1.
    """
    share = Image.fromarray(mask.astype(np.float32))
    resized = np.asarray(share.resize((width, height), Image.Resampling.BILINEAR))
    # Half covered must come out the same on every machine, whatever the last bit of the sum.
    return (resized > 0.5 + 1e-6).astype(np.uint8)


def thumbnail(image: Image.Image, side: int = 256) -> bytes:
    """Give a JPEG of an RGB image squashed to `side` x `side` pixels, as a model sees it."""
    small = image.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _open(data: bytes, name: str) -> Image.Image:
    """Decode the first frame, after a look at the size in the header."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise DatasetError(
            f"{name}: {image.width} x {image.height} pixels are more than the limit of "
            f"{MAX_PIXELS}; cut it into tiles"
        )
    image.load()
    return image


def _reason(error: BaseException) -> str:
    # Pillow's text for unknown data shows a memory address, which tells a user nothing.
    text = "not an image of a known format" if "BytesIO" in str(error) else str(error)
    return text or type(error).__name__
