"""The chosen images of a report, drawn again from the cache, so that no map had to be kept.

Axes: n images; h, w pixels of the model's input.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from pipeline.detection.detector import Detector
from pipeline.detection.memory_part import MemoryPart
from pipeline.detection.parts import Part
from pipeline.detection.values import Maps, Values, draw_maps, part_values
from pipeline.inputs import CachedDataset
from pipeline.report.data import GalleryItem, ImageRow
from pipeline.report.gallery import select_gallery

_PER_CATEGORY = 12


def make_gallery(
    images: Sequence[ImageRow], data: CachedDataset, detector: Detector
) -> list[GalleryItem]:
    """Choose images and draw them; of a detector of several parts, what each part saw as well."""
    picks = select_gallery(
        np.array([image.score for image in images]),
        np.array([image.label for image in images]),
        [image.category for image in images],
        _PER_CATEGORY,
    )
    found: list[GalleryItem] = []
    for category in dict.fromkeys(images[pick.row].category for pick in picks):
        chosen = [pick for pick in picks if images[pick.row].category == category]
        shown = [images[pick.row] for pick in chosen]
        drawn = _draw(shown, data, detector)
        found += [replace(one, rank=pick.rank) for pick, one in zip(chosen, drawn, strict=True)]
    return found


def _draw(
    images: Sequence[ImageRow], data: CachedDataset, detector: Detector
) -> Iterator[GalleryItem]:
    """Draw images of one category."""
    rows = np.array([image.row for image in images], np.int64)
    values = part_values([detector], data, rows, images[0].category)
    maps, masks = draw_maps(detector, values), data.cache.masks(rows)
    of_parts = part_maps(detector, values) if len(detector.parts) > 1 else {}
    thumbnails: list[bytes | None] = [None] * len(rows)
    if data.manifest.has_thumbnails:
        thumbnails = data.manifest.select(rows)["thumbnail"].to_pylist()
    for at, image in enumerate(images):
        yield GalleryItem(
            image=image,
            rank="median",
            anomaly_map=maps[at],
            parts={name: one[at] for name, one in of_parts.items()},
            thumbnail=thumbnails[at],
            mask=masks[at],
        )


def part_maps(detector: Detector, values: Mapping[str, Values]) -> dict[str, Maps]:
    """Give the maps `(n, h, w)` in [0, 1] of each part that draws, by its name, on one scale."""
    names = part_names(detector.drawing)
    n_images = len(values[detector.parts[0].key])
    drawn: dict[str, list[Maps]] = {name: [] for name in names}
    for at in range(n_images):  # one at a time, as maps are drawn
        one = [torch.from_numpy(values[part.key][at : at + 1]) for part in detector.parts]
        for name, found in zip(
            names, detector.draw_parts(*(each.to(detector.device) for each in one)), strict=True
        ):
            drawn[name].append(found.cpu().numpy())
    return {name: np.concatenate(found) for name, found in drawn.items()}


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
