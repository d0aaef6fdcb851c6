"""The chosen images of a report, drawn again from the cache, so that no map had to be kept.

Axes: n images; h, w pixels of the model's input.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.detection.detector import Detector
from pipeline.detection.memory_part import MemoryPart
from pipeline.detection.parts import Part
from pipeline.detection.values import Maps, draw_maps, draw_part_maps, part_values
from pipeline.inputs import CachedDataset
from pipeline.report.data import GalleryItem, ImageRow, Rank
from pipeline.report.gallery import select_gallery

_PER_CATEGORY = 12


def make_gallery(
    images: Sequence[ImageRow], data: CachedDataset, detector: Detector
) -> list[GalleryItem]:
    """Choose images and draw them, and what each of several parts saw, or said of the whole."""
    picks = select_gallery(
        np.array([image.score for image in images]),
        np.array([image.label for image in images]),
        [image.category for image in images],
        _PER_CATEGORY,
    )
    found: list[GalleryItem] = []
    for category in dict.fromkeys(images[pick.row].category for pick in picks):
        chosen = [pick for pick in picks if images[pick.row].category == category]
        found += _draw([(images[pick.row], pick.rank) for pick in chosen], data, detector)
    return found


def _draw(
    chosen: Sequence[tuple[ImageRow, Rank]], data: CachedDataset, detector: Detector
) -> Iterator[GalleryItem]:
    """Draw images of one category."""
    rows = np.array([image.row for image, _ in chosen], np.int64)
    values = part_values([detector], data, rows, chosen[0][0].category)
    maps, masks = draw_maps(detector, values), data.cache.masks(rows)
    of_parts: dict[str, Maps] = {}
    if len(detector.parts) > 1:
        names = part_names(detector.drawing)
        of_parts = dict(zip(names, draw_part_maps(detector, values), strict=True))
    whole = {
        name: values[part.key][:, 0]
        for name, part in zip(part_names(detector.whole), detector.whole, strict=True)
    }
    thumbnails = data.manifest.thumbnails(rows)
    for at, (image, rank) in enumerate(chosen):
        yield GalleryItem(
            image=image,
            rank=rank,
            anomaly_map=maps[at],
            parts={name: one[at] for name, one in of_parts.items()},
            whole={name: float(one[at]) for name, one in whole.items()},
            thumbnail=thumbnails[at],
            mask=masks[at],
        )


def part_names(parts: Sequence[Part]) -> list[str]:
    """Name parts by what they differ in: backbone, layer, input size, or that one is a memory."""
    several = len({part.spec.name for part in parts}) > 1
    sizes = len({part.spec.height for part in parts}) > 1
    names = []
    for part in parts:
        layer = "last layer" if part.spec.layer is None else f"layer {part.spec.layer}"
        words = [part.spec.name] if several else []
        words += [layer] if part.spec.library != "spg_core" else []
        words += [f"{part.spec.height} px"] if sizes else []
        words += ["memory"] if isinstance(part, MemoryPart) else []
        names.append(", ".join(words) or part.spec.name)
    return [
        name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names, 1)
    ]
