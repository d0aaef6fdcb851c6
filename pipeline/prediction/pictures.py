"""Heatmap and overlay of an image: what they are called, where they may lie, how they are made."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manifests.images import open_image
from pipeline.drawing.mark import is_marked
from pipeline.drawing.overlay import heatmap, save_picture
from pipeline.drawing.verdict_picture import Said, verdict_picture
from pipeline.files import check_place, new_file
from pipeline.prediction.inputs import HEATMAP, OVERLAY, Listed, full_path
from spg_core.errors import StoreError

LONGEST_NAME = 255
"""Bytes of a file's name, in any file system of today."""


def output_names(listed: Sequence[Listed], below: str | None = None) -> list[str]:
    """Give each image the start of its pictures' names: its path below a folder, without ending.

    Images that differ in their ending alone keep it.

    Args:
        listed: the images.
        below: the folder; None for the one that all images share.
    """
    whole = [full_path(one.path) for one in listed]
    folders = [
        str(Path(path).parent) for path, one in zip(whole, listed, strict=True) if not one.error
    ]
    common = below or (os.path.commonpath(folders) if folders else ".")
    names = [os.path.relpath(path, common) for path in whole]
    stems = [os.path.splitext(name)[0] for name in names]  # noqa: PTH122 - as text, "." stays
    times = Counter(stem for stem, one in zip(stems, listed, strict=True) if not one.error)
    short = [stem if times[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
    # x.png.png beside x.png and x.jpg: none is shortened
    return short if len(set(short)) == len(set(names)) else names


def with_room_for_pictures(listed: Sequence[Listed]) -> list[Listed]:
    """Turn images into errors whose names leave no room for the endings of their pictures."""
    room = LONGEST_NAME - max(map(len, (HEATMAP, OVERLAY)))
    error = f"its name is too long for {HEATMAP} behind it, so no picture can be written; rename it"
    return [
        replace(one, error=f"{one.path}: {error}")
        if one.error is None and len(os.fsencode(Path(one.path).name)) > room
        else one
        for one in listed
    ]


def check_pictures(images: Sequence[Listed], names: Sequence[str], out: Path) -> None:
    """Refuse a folder in which the pictures would replace an input, or a file that is not ours.

    Raises: StoreError naming the file.
    """
    inputs = {_identity(Path(one.path)) for one in images if one.error is None}
    for one, name in zip(images, names, strict=True):
        for ending in (HEATMAP, OVERLAY) if one.error is None else ():
            place = out / (name + ending)
            check_place(place, is_marked, make_folders=True)
            if place.exists() and _identity(place) in inputs:
                raise StoreError(
                    f"{place} is an image to judge and would be replaced by a picture of "
                    f"{one.path}; choose another --out"
                )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@dataclass(frozen=True)
class Pictures:
    """The paths of both."""

    heatmap: str
    overlay: str


def draw(
    path: str, found: NDArray[np.float32], target: Path, said: Said, *, exif: bool
) -> Pictures:
    """Write heatmap and overlay of an image.

    The image is decoded again, so that no full-size picture waits in memory for the model.

    Args:
        path: of the image.
        found: its map `(H, W)` in [0, 1].
        target: start of the pictures' paths.
        said: what is written beside the photo.
        exif: turn the image as its EXIF orientation says.

    Raises: DatasetError for an image that is another by now; StoreError.
    """
    photo = open_image(Path(path), exif=exif)
    written = []
    for ending, picture in (
        (HEATMAP, heatmap(found)),
        (OVERLAY, verdict_picture(photo, found, said)),
    ):
        place = target.with_name(target.name + ending)
        with new_file(place, is_marked, make_folders=True) as temporary:
            save_picture(picture, temporary)
        written.append(str(place))
    return Pictures(*written)
