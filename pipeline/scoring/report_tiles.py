"""A tile for each image of a report: small enough that thousands fit in one page."""

from collections.abc import Sequence

import numpy as np

from pipeline.detection.detector import Detector
from pipeline.detection.values import Rows, compute_maps
from pipeline.inputs import CachedDataset
from pipeline.report.data import ImageRow, Tile
from pipeline.report.pictures import draw_tile

MOST_TILES = 4000
"""A tile takes some 6 kB of the page."""
_AT_ONCE = 64


def make_tiles(
    images: Sequence[ImageRow], data: CachedDataset, detector: Detector
) -> dict[int, Tile]:
    """Draw the images of a report again from the cache; where there are too many, the worst ranked.

    Raises: StoreError, CorruptStore.
    """
    rows = tiled_rows(images)
    made: dict[int, Tile] = {}
    for start in range(0, len(rows), _AT_ONCE):
        here = rows[start : start + _AT_ONCE]
        maps = compute_maps(detector, data, here)
        photos = data.manifest.thumbnails(here)
        for row, values, photo in zip(here.tolist(), maps, photos, strict=True):
            made[row] = draw_tile(values, photo, f"image {row}")
    return made


def tiled_rows(images: Sequence[ImageRow], most: int = MOST_TILES) -> Rows:
    """Choose the images that have a tile, ascending: all, or as many of each category and label.

    Of those the most wrongly ranked: anomalous ones of a low score, normal ones of a high one.
    """
    places: dict[tuple[str, int], list[ImageRow]] = {}
    for image in images:
        places.setdefault((image.category, image.label), []).append(image)
    ranked = []
    for (_, label), found in places.items():
        worst_first = sorted(found, key=lambda image: image.score, reverse=not label)
        ranked += [(rank, image.row) for rank, image in enumerate(worst_first)]
    return np.sort(np.array([row for _, row in sorted(ranked)[:most]], np.int64))
