"""Open images and masks from disk, one way for the whole pipeline.

Image files are foreign input: only the formats below are tried (Pillow would otherwise also run
Ghostscript on an EPS), the size in the header is checked before pixels are decoded, and whatever
Pillow raises becomes a `DatasetError` that names the file. Of an image with several frames the
first counts, a mask may have one alone. Sixteen-bit colour PNGs reach us as their high bytes, which
is a proper scaling; sixteen-bit grey ones are refused, because their range in use (often 12 bits)
cannot be known from the file.
"""

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from manifests.files import STANDS_FOR
from manifests.files import read_bytes as read_bytes  # part of this module's face
from manifests.levels import background_of, levels_of
from manifests.paths import IMAGE_SUFFIXES
from manifests.schema import MAX_PIXELS
from spg_core.errors import DatasetError

FORMATS: Final = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
UNREAD: Final = {
    "GIF": b"GIF8",
    "AVIF": b"ftypavif",
    "HEIC": b"ftyphei",
    "HEIF": b"ftypmif1",
    "JPEG 2000": b"jP  ",
    "PDF": b"%PDF",
}
"""Formats that cameras, phones and offices give, by the file's first or its fifth byte and on."""
MAX_SIDE: Final = 1 << 20
"""Pixels of a side; Pillow resizes a longer one with gigabytes of weights, or not at all."""
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
        exif: Turn the image as its EXIF orientation says. Off by default, as in the released code;
            Pillow turns a TIFF by its tag in any case.

    Raises:
        DatasetError: The file cannot be read or decoded, is sixteen-bit or too large.
    """
    return decode_image(read_bytes(path), str(path), exif=exif)


def is_to_be_turned(image: Image.Image) -> bool:
    """Tell whether a decoded image's EXIF orientation says that it does not lie upright yet."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except DECODE_ERRORS:  # torn EXIF says nothing
        return False


class Mask(NamedTuple):
    """A mask file as read."""

    pixels: NDArray[np.bool_]
    """Anomalous pixels `(height, width)`."""
    mask_id: str
    """SHA-256 of the file's bytes, 64 hex digits; of a folder, of such lines in order of names."""
    background: int
    """Largest level that counts as background: 0, or half of the largest in a mask of greys."""


def load_mask(path: Path, name: str) -> Mask:
    """Read a mask file, or a folder of masks of one image, with a digest of the bytes decoded.

    The masks in a folder count together: a pixel is anomalous where any of them says so.

    Raises:
        DatasetError: A file cannot be read or decoded; says `name`.
    """
    if not path.is_dir():
        data = read_bytes(path)
        levels, background = _decode_levels(data, name)
        return Mask(levels > background, hashlib.sha256(data).hexdigest(), background)
    together: Mask | None = None
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            mask = load_mask(file, f"{name}/{file.name}")
            mask = mask._replace(mask_id=f"{mask.mask_id}\n")
            together = mask if together is None else _both(together, mask, name)
    if together is None:
        raise DatasetError(f"{name}: no mask in this folder")
    return together._replace(mask_id=hashlib.sha256(together.mask_id.encode()).hexdigest())


def _both(one: Mask, other: Mask, name: str) -> Mask:
    """Join two masks of an image; the digests are collected, a line each."""
    if one.pixels.shape != other.pixels.shape:
        raise DatasetError(f"{name}: masks of different sizes in this folder")
    pixels = one.pixels | other.pixels
    return Mask(pixels, one.mask_id + other.mask_id, max(one.background, other.background))


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
        raise DatasetError(f"{name}: cannot be decoded ({_reason(error, data)})") from error


def decode_mask(data: bytes, name: str) -> NDArray[np.bool_]:
    """Decode mask bytes as bool `(height, width)`; `name` is the file named in errors.

    Anomalous is a raw value other than 0: class ids as in VisA, 255 as in MVTec AD, the index of a
    palette image (not its colour). Of a colour mask, any channel other than 0; alpha is ignored.
    A mask of many greys is cut at half of its largest, see `manifests.levels`.
    """
    levels, background = _decode_levels(data, name)
    return np.asarray(levels > background)


def fit_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Bring a mask to its image's size: the nearest pixel, so that none is invented."""
    if mask.shape == (height, width):
        return mask
    pixels = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(pixels.resize((width, height), Image.Resampling.NEAREST), dtype=np.bool_)


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a mask from its native size to the model's input size.

    As the released code does it: 0 and 255 in 8 bits, Pillow's bilinear filter, then 128 or more.
    When the filter shrinks, it averages over the covered area, so an output pixel says which share
    of it is anomalous; half makes it anomalous. A defect may vanish by that, which the caller
    counts.

    Args:
        mask: Anomalous pixels, bool `(native height, native width)`.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        uint8 `(height, width)`, 0 or 1.
    """
    pixels = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    resized = np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR))
    return (resized >= 128).astype(np.uint8)


def thumbnail(image: Image.Image, side: int = 256) -> bytes:
    """Give a JPEG of an RGB image squashed to `side` x `side` pixels, as a model sees it."""
    small = image.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _decode_levels(data: bytes, name: str) -> tuple[NDArray[np.integer], int]:
    """Give a mask's levels `(height, width)` and the largest that is background."""
    try:
        image = _open(data, name)
        n_pages = getattr(image, "n_frames", 1)
        if n_pages > 1 and image.format != "MPO":
            raise DatasetError(f"{name}: {n_pages} pages; expected a mask of one")
        levels = levels_of(image, name)
        lossy = image.format in LOSSY_FORMATS
        return levels, background_of(levels, lossy=lossy, name=name)
    except DECODE_ERRORS as error:
        raise DatasetError(f"{name}: cannot be decoded ({_reason(error, data)})") from error


def _open(data: bytes, name: str) -> Image.Image:
    """Decode the first frame, after a look at the size in the header."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:  # before we are told how many
        raise DatasetError(
            f"{name}: its pixels are more than the limit of {MAX_PIXELS}; cut it into tiles"
        ) from None
    if image.width * image.height > MAX_PIXELS:
        raise DatasetError(
            f"{name}: {image.width} x {image.height} pixels are more than the limit of "
            f"{MAX_PIXELS}; cut it into tiles"
        )
    if max(image.size) > MAX_SIDE:
        raise DatasetError(
            f"{name}: {image.width} x {image.height} pixels have a side above {MAX_SIDE}; cut it "
            "into tiles"
        )
    image.load()
    return image


def _reason(error: BaseException, data: bytes) -> str:
    # Pillow's text for unknown data shows a memory address, which tells a user nothing.
    if "BytesIO" not in str(error):
        return str(error) or type(error).__name__
    for kind, start in UNREAD.items():
        if data[:4] == start or data[4 : 4 + len(start)] == start:
            return f"{kind}, which is not read: save it as PNG or JPEG"
    for start, what in STANDS_FOR.items():
        if data[: len(start)].lower() == start:
            return what
    return "not an image of a known format"
