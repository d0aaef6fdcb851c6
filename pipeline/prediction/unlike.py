"""How many images of a cached dataset are unlike the good parts that a detector knows."""

from collections import Counter

import numpy as np
import torch

from cache.objects import Objects
from pipeline.configs import ScoreConfig
from pipeline.detection.find import AnyDetector
from pipeline.detection.load import make_detector
from pipeline.detection.sources import open_sources
from pipeline.inputs import CachedDataset
from pipeline.machine.device import by_halves, resolve_device
from pipeline.prediction.familiar import ASPECT_STRETCH, Familiar
from pipeline.prediction.familiar_file import choose_familiar
from pipeline.terminal.progress import say

_IMAGES_AT_ONCE = 64


def remark_unlike(
    store: Objects, guides: AnyDetector, dataset: str, config: ScoreConfig, key: str | None
) -> None:
    """Say, by category, how many images are unlike the good parts, where some are kept.

    Raises: CorruptStore for a torn file of good parts; as `open_sources`.
    """
    familiar = choose_familiar(guides, None)
    if familiar is None:
        return
    data = open_sources(store, dataset, make_detector(guides, config).specs, key)
    unlike = count_unlike(data, familiar, config.device)
    if unlike:
        images = Counter(data.manifest.column("category"))
        told = ", ".join(f"{n} of {images[one]} of {one}" for one, n in sorted(unlike.items()))
        say(
            f"remark: unlike the good parts of {familiar.name}, so that their scores say little: "
            f"{told}"
        )


def count_unlike(data: CachedDataset, familiar: Familiar, device: str) -> Counter[str]:
    """Count the images, by category, that `predict` would doubt by their tokens or their shape."""
    place = resolve_device(device)
    categories = data.manifest.column("category")
    width, height = data.manifest.column("width"), data.manifest.column("height")
    low, high = familiar.aspects[0] / ASPECT_STRETCH, familiar.aspects[1] * ASPECT_STRETCH
    found: Counter[str] = Counter()

    def take(here: slice) -> None:
        rows = np.arange(here.start, here.stop)
        tokens = torch.from_numpy(data.cache.tokens(rows)).to(place)
        for row, applies in zip(rows.tolist(), familiar.applicability(tokens), strict=True):
            if applies < 0.5 or not low <= width[row] / height[row] <= high:
                found[categories[row]] += 1

    by_halves("comparing with good parts", data.cache.n_images, _IMAGES_AT_ONCE, place, take)
    return found
