"""Open one image and its mask: their digests, sizes and what is wrong with them.

Each file is read once; the same bytes are hashed and decoded.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.images import Mask, decode_image, fit_mask, load_mask, read_bytes, thumbnail
from manifests.lists import Entry
from manifests.problems import Kind, Problem
from spg_core.errors import DatasetError

MAX_STRETCH: Final = 1.1
"""Most by which a mask's sides may differ in proportion from its image's: sizes are rounded."""


@dataclass(frozen=True)
class Facts:
    """What is true of one image."""

    entry: Entry
    """As listed, with `label` and `defect` settled by the mask where the layout left them open."""
    image_id: str
    mask_id: str | None
    width: int
    height: int
    mask_pixels: int
    two_greys: bool
    """Whether the image has two colours, both grey, as a mask has."""
    thumbnail: bytes | None


class Decoded(NamedTuple):
    """An image as it was decoded, for whoever wants it before it is let go."""

    files: tuple[str, str, str | None]
    """The image's path, the SHA-256 of its bytes, that of its mask."""
    image: Image.Image
    mask: NDArray[np.bool_] | None
    """At the image's size `(height, width)`; None where it has none."""


Keep = Callable[[Decoded], None]
"""Told of each image that can be used, in the thread that decoded it."""


@dataclass(frozen=True)
class Examined:
    """Facts, or None if the image cannot be used, and every problem met."""

    facts: Facts | None
    problems: tuple[Problem, ...]


def examine(
    entry: Entry, root: Path, *, exif: bool, thumbnails: bool, keep: Keep | None = None
) -> Examined:
    """Decode one image and its mask; safe to call from several threads at once."""
    problems: list[Problem] = []
    image, native = None, None
    image_id, size, picture, two_greys = "", None, None, False
    try:
        data = read_bytes(root / entry.image_path)
        image = decode_image(data, entry.image_path, exif=exif)
        image_id, size = hashlib.sha256(data).hexdigest(), image.size
        picture = thumbnail(image) if thumbnails else None
        two_greys = _has_two_greys(image)
    except DatasetError as error:
        problems.append(_undecodable(root, entry.image_path, error))

    # A bad image does not hide a bad mask: both are told in the same run.
    mask_id, mask_pixels = None, 0
    if entry.mask_path is not None:
        try:
            mask = load_mask(root / entry.mask_path, entry.mask_path)
            width, height = size or mask.pixels.shape[::-1]
            native = fit_mask(mask.pixels, height, width)
            mask_pixels = int(np.count_nonzero(native))
            mask_id = mask.mask_id
            problems += _mask_problems(entry, mask, (width, height), mask_pixels)
        except DatasetError as error:
            problems.append(_undecodable(root, entry.mask_path, error))
    elif entry.label == 1:
        problems.append(Problem("missing mask", entry.image_path))

    if size is None or image is None:
        return Examined(None, tuple(problems))
    if keep is not None and (entry.mask_path is None or native is not None):
        keep(Decoded((entry.image_path, image_id, mask_id), image, native))
    facts = Facts(
        entry=_settled(entry, mask_pixels),
        image_id=image_id,
        mask_id=mask_id,
        width=size[0],
        height=size[1],
        mask_pixels=mask_pixels,
        two_greys=two_greys,
        thumbnail=picture,
    )
    return Examined(facts, tuple(problems))


def _mask_problems(
    entry: Entry, mask: Mask, size: tuple[int, int], mask_pixels: int
) -> list[Problem]:
    assert entry.mask_path is not None
    problems = []
    height, width = mask.pixels.shape
    if (width, height) != size:
        # A mask of another shape is cut, padded or turned, and stretching it would move defects.
        stretch = width * size[1] / (height * size[0])
        same_shape = 1 / MAX_STRETCH <= stretch <= MAX_STRETCH
        detail = f"{width} x {height} pixels, its image {size[0]} x {size[1]}"
        kind: Kind = "resized mask" if same_shape else "mask size"
        if kind == "mask size" and (height, width) == size:
            detail += "; --exif turns images as their EXIF orientation says"
        problems.append(Problem(kind, entry.mask_path, detail))
    if mask.background > 0:
        detail = f"above {mask.background} is defect"
        problems.append(Problem("grey mask", entry.mask_path, detail))
    if entry.label == 1 and mask_pixels == 0:
        problems.append(Problem("empty mask", entry.mask_path))
    if entry.label != 0 and 2 * mask_pixels > size[0] * size[1]:
        share = 100 * mask_pixels // (size[0] * size[1])
        problems.append(Problem("large mask", entry.mask_path, f"{share} % of the image"))
    if entry.label == 0 and mask_pixels > 0:
        detail = f"{mask_pixels} anomalous pixels, but {entry.image_path} is listed as good"
        problems.append(Problem("mask on a good image", entry.mask_path, detail))
    return problems


def _has_two_greys(image: Image.Image) -> bool:
    colours = image.getcolors(2) or []
    greys = [colour for _, colour in colours if isinstance(colour, tuple) and len({*colour}) == 1]
    return len(greys) == 2


def _settled(entry: Entry, mask_pixels: int) -> Entry:
    if entry.label is not None:
        return entry
    label = int(mask_pixels > 0)
    defect = entry.defect if label else "good"
    return Entry(entry.category, entry.split, defect, entry.image_path, entry.mask_path, label)


def _undecodable(root: Path, path: str, error: DatasetError) -> Problem:
    # The problem names the file itself, so the error's own mention of it is cut.
    text = str(error).removeprefix(f"{root / path}: ").removeprefix(f"{path}: ")
    return Problem("undecodable", path, text)
