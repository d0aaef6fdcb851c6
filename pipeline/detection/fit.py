"""Fit how parts meet, on the auxiliary dataset alone: scales, and weights where they are learned.

Both are fitted on pixels of each part's own maps: of every image up to 256 defective and 256 normal
ones, chosen by a seed. A memory has no memory of auxiliary products; in its place stands one of as
many normal auxiliary images, which are then left out.

Axes: K parts; n pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.configs import ScoreConfig
from pipeline.detection.detector import Detector, detector_of
from pipeline.detection.memory_part import MemoryPart
from pipeline.detection.parts import Part
from pipeline.detection.values import Rows, part_values
from pipeline.inputs import CachedDataset
from pipeline.terminal.progress import bar
from spg_core.errors import FitError
from spg_core.meeting import Scale, mixture_weights

_PIXELS = 256
"""Of an image and class."""
_SHOTS = 4
"""Of a stand-in for a memory of all normal images."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Pixels:
    """What the parts say of labelled pixels."""

    values: NDArray[np.float32]
    """`(K, n)` in [0, 1]."""
    labels: NDArray[np.bool_]
    """`(n,)`, True where defective."""


def sample_pixels(parts: Sequence[Part], data: CachedDataset) -> Pixels:
    """Draw every part's maps of a labelled dataset, and keep a sample of pixels.

    Args:
        parts: all on one device.
        data: the tokens of the first, those of the others beside; with masks.

    Raises: FitError where the images left hold no pixel of one of the classes.
    """
    generator = np.random.default_rng(0)
    values: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.bool_]] = []
    with bar("Fitting the parts' scale", data.cache.n_images) as advance:
        for category in data.manifest.categories:
            rows = data.manifest.rows_of(category)
            standing, left = _stand_in(parts, data, category, rows)
            advance(len(rows) - len(left))
            detector = detector_of("sample", standing, ScoreConfig())
            for at in range(0, len(left), _AT_ONCE):
                chosen = left[at : at + _AT_ONCE]
                for maps, mask in _maps(detector, data, chosen, category):
                    picked = _pick(mask, generator)
                    values.append(maps.reshape(len(parts), -1)[:, picked])
                    labels.append(mask.reshape(-1)[picked] > 0)
                advance(len(chosen))
    found = Pixels(np.concatenate(values, axis=1), np.concatenate(labels))
    if found.labels.all() or not found.labels.any():
        raise FitError(
            f"{data.cache.where} has {int(found.labels.sum())} defective pixels of "
            f"{len(found.labels)} looked at; parts are put on one scale by masks, which it lacks"
        )
    return found


def fit_scales(pixels: Pixels, names: Sequence[str]) -> list[Scale]:
    """Fit each part's logistic scale, both classes counting the same in all.

    Raises: FitError for a part that finds defective pixels no better than chance.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    scales = []
    for name, values in zip(names, pixels.values, strict=True):
        fitted = LogisticRegression(C=1e6, class_weight="balanced")
        fitted.fit(values[:, None].astype(np.float64), pixels.labels)
        slope, shift = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
        if slope <= 0:
            raise FitError(
                f"{name} finds the defects of the auxiliary dataset no better than chance, so it "
                "cannot be put on a scale with others; leave it out, or give --scale none"
            )
        scales.append(Scale(slope, shift))
    return scales


def fit_weights(pixels: Pixels, scales: Sequence[Scale | None]) -> list[float]:
    """Learn the weights of the parts' mean, at least 0 and 1 in all."""
    values = [torch.from_numpy(one) for one in pixels.values]
    pairs = zip(scales, values, strict=True)
    scaled = torch.stack([one if scale is None else scale(one) for scale, one in pairs])
    weights: list[float] = mixture_weights(scaled, torch.from_numpy(pixels.labels)).tolist()
    return weights


@torch.inference_mode()
def _maps(
    detector: Detector, data: CachedDataset, rows: Rows, category: str
) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Give each image's maps by every part, `(K, height, width)`, with its mask."""
    values = part_values([detector], data, rows, category)
    made = []
    for at, mask in enumerate(data.cache.masks(rows)):
        own: list[Tensor] = [
            torch.from_numpy(values[part.key][at : at + 1]) for part in detector.parts
        ]
        drawn = detector.draw_parts(*(one.to(detector.device) for one in own))
        made.append((torch.cat(drawn).cpu().numpy(), mask))
    return made


def _pick(mask: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.int64]:
    flat = mask.reshape(-1)
    found = [np.flatnonzero(flat == label) for label in (0, 1)]
    kept = [generator.choice(one, min(_PIXELS, len(one)), replace=False) for one in found]
    return np.concatenate(kept)


def _stand_in(
    parts: Sequence[Part], data: CachedDataset, category: str, rows: Rows
) -> tuple[list[Part], Rows]:
    """Give parts that know a category, and its rows that none of them was made of."""
    shots = max((_n_shots(part) for part in parts if isinstance(part, MemoryPart)), default=0)
    if shots == 0:
        return list(parts), rows
    normal = rows[data.manifest.labels[rows] == 0]
    kept = normal[: max(1, min(shots, len(normal) // 2))]
    if len(normal) < 2:
        raise FitError(
            f"{data.cache.where} has {len(normal)} normal images of {category}; a memory is put on "
            "a scale by two at least"
        )
    standing: list[Part] = []
    for part in parts:
        if isinstance(part, MemoryPart):
            tokens = torch.from_numpy(data.of(part.spec).cache.tokens(kept)).flatten(0, 1)
            span = {category: slice(0, len(tokens))}
            standing.append(replace(part, tokens=tokens.to(part.device), spans=span))
        else:
            standing.append(part)
    return standing, rows[~np.isin(rows, kept)]


def _n_shots(part: MemoryPart) -> int:
    """Tell of how many images a memory is, a category."""
    most = max(span.stop - span.start for span in part.spans.values())
    n_images: int = most // part.spec.grid.tokens_per_image
    return min(_SHOTS, max(1, n_images))
