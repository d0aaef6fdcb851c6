"""Cut the strongest patches of atoms out of their images, each image decoded once.

A picture holds `PER_PICTURE` atoms, one below the other, the K patches of each from left to right.
A cut shows the patch amid `CONTEXT` x `CONTEXT` patches, moved inwards at an edge.
"""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.atoms.survey import Survey
from pipeline.drawing.thumbnail import open_thumbnail
from pipeline.terminal.progress import bar
from spg_core.types import PatchGrid

CONTEXT = 7
CELL = 64
"""Pixels of a cut's side: of a 28 x 28 grid, what a thumbnail of 256 pixels has of 7 patches."""
PER_PICTURE = 16
"""Of 32 in a picture, twice as much is decoded for a row; jumping about had 23 frames for 39."""
_QUALITY = 80
_CUT_BYTES = CELL * CELL * 3


def span_of(grid: PatchGrid) -> tuple[int, int]:
    """Give how many patches a cut is high and wide."""
    return min(CONTEXT, grid.rows), min(CONTEXT, grid.cols)


def corner_of(patch: int, grid: PatchGrid) -> tuple[int, int]:
    """Give the row and column of the patch at a cut's upper left."""
    high, wide = span_of(grid)
    row, col = divmod(patch, grid.cols)
    return (
        min(max(row - high // 2, 0), grid.rows - high),
        min(max(col - wide // 2, 0), grid.cols - wide),
    )


def pictures(survey: Survey, order: NDArray[np.int64], scratch: Path) -> Iterator[bytes]:
    """Yield JPEGs of the atoms at places `order`, `PER_PICTURE` each; none without thumbnails.

    Args:
        survey: whose strongest patches are cut.
        order: `(n,)` places in the survey, in the order of the page.
        scratch: a folder for a file without a name, 12 kB a patch, gone with this process.

    Raises: CorruptStore for a thumbnail that is no picture.
    """
    if not survey.data.manifest.has_thumbnails or len(order) == 0:
        return
    keep = survey.strongest.row.shape[1]
    # read and written, not mapped: what is written then is no memory of this process
    with tempfile.TemporaryFile(dir=scratch) as file:
        file.truncate(len(order) * keep * _CUT_BYTES)
        _cut_all(survey, order, file)
        file.seek(0)
        for start in range(0, len(order), PER_PICTURE):
            n_atoms = min(PER_PICTURE, len(order) - start)
            cells = np.frombuffer(file.read(n_atoms * keep * _CUT_BYTES), np.uint8)
            by_row = cells.reshape(n_atoms, keep, CELL, CELL, 3).swapaxes(1, 2)
            pixels = by_row.reshape(n_atoms * CELL, keep * CELL, 3)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY, optimize=True)
            yield stream.getvalue()


def _cut_all(survey: Survey, order: NDArray[np.int64], file: IO[bytes]) -> None:
    """Write each cut to its place among `(n, K)`, image by image."""
    rows, patches = survey.strongest.row[order], survey.strongest.patch[order]
    atom, place = np.nonzero(rows >= 0)
    by_image = np.argsort(rows[atom, place], kind="stable")
    needed, starts = np.unique(rows[atom, place][by_image], return_index=True)
    grid = survey.data.spec.grid
    table = survey.data.manifest.table
    with bar("Cutting patches", len(needed)) as advance:
        for row, these in zip(needed, np.split(by_image, starts[1:]), strict=True):
            jpeg = table["thumbnail"][int(row)].as_py()
            if jpeg is not None:
                photo = open_thumbnail(jpeg, str(table["image_path"][int(row)]))
                for at, to in zip(atom[these], place[these], strict=True):
                    file.seek(int(at * rows.shape[1] + to) * _CUT_BYTES)
                    file.write(_cut(photo, int(patches[at, to]), grid))
            advance()


def _cut(photo: Image.Image, patch: int, grid: PatchGrid) -> bytes:
    """Give RGB pixels, `CELL` x `CELL`."""
    (top, left), (high, wide) = corner_of(patch, grid), span_of(grid)
    wide_px, high_px = photo.width / grid.cols, photo.height / grid.rows
    box = (left * wide_px, top * high_px, (left + wide) * wide_px, (top + high) * high_px)
    return photo.resize((CELL, CELL), Image.Resampling.BICUBIC, box=box).tobytes()
