"""Known parts of a cached dataset, or of the auxiliary one that guides were fitted on."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from cache.objects import Objects
from pipeline.artifacts.documents import GuidesDocument
from pipeline.artifacts.notes import CalibratedOn
from pipeline.calibration.known_parts import KnownParts, held_images
from pipeline.configs import CalibrateSource, ScoreConfig
from pipeline.detection.detector import Detector
from pipeline.detection.find import AnyDetector
from pipeline.detection.load import make_detector, open_fitted_on, singles
from pipeline.detection.sources import open_sources
from pipeline.detection.values import compute
from pipeline.inputs import CachedDataset
from pipeline.machine.device import resolve_device
from pipeline.prediction.familiar import MOST_IMAGES, Learner
from pipeline.scoring.unseen import memories_of
from pipeline.terminal.progress import bar, say
from spg_core.errors import ArtifactError, ConfigError, DatasetError
from spg_core.nearest import near

_IMAGES_A_BLOCK = 64


def cached_parts(
    store: Objects, guides: AnyDetector, scoring: ScoreConfig, source: CalibrateSource
) -> KnownParts:
    """Find the cached images that a source means; nothing is scored yet.

    Raises: ArtifactError, ConfigError, DatasetError, NotInStore, IncompleteCache, StoreError,
        CorruptStore.
    """
    detector = make_detector(guides, scoring).to(resolve_device(scoring.device))
    data = _open(store, guides, detector, source)
    rows = _usable(data, guides, _wanted(data, source))
    told = CalibratedOn(
        cache=data.parent,
        split=source.split,
        categories=list(source.category),
        good=[],
        bad=[],
        is_auxiliary=data.cache.key in _fitted_keys(guides),
    )
    labels = data.manifest.labels[rows].astype(np.bool_)
    categories = [str(name) for name in data.manifest.select(rows)["category"].to_pylist()]
    score = partial(_compute, detector, data, rows, scoring)
    if source.dataset is None:
        return KnownParts(labels, categories, told, score, None)
    learner = Learner()
    return KnownParts(
        labels, categories, told, partial(_learn, score, learner, data, rows), learner
    )


def _open(
    store: Objects, guides: AnyDetector, detector: Detector, source: CalibrateSource
) -> CachedDataset:
    """Open the dataset that is named, else the auxiliary one. Raises: as `cached_parts`."""
    if source.dataset is not None:
        split = source.split or "test"
        return open_sources(store, source.dataset, detector.specs, source.key, split)
    if memories_of(guides):
        raise ArtifactError(
            f"{guides.id} holds a memory, which no auxiliary product is asked against; calibrate "
            "it on parts of its own product: --good FOLDER, or --dataset NAME"
        )
    return open_fitted_on(store, guides, detector)


def _learn(
    score: Callable[[], NDArray[np.float32]],
    learner: Learner,
    data: CachedDataset,
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Let good parts, spread over all, be learned from; then score."""
    good = rows[data.manifest.labels[rows] == 0]
    width, height = data.manifest.column("width"), data.manifest.column("height")
    for row in good[:: max(1, -(-len(good) // MOST_IMAGES))].tolist():
        tokens = torch.from_numpy(data.cache.tokens(np.array([row], np.int64))[0])
        learner.add(tokens, width[row] / height[row])
    return score()


def _wanted(data: CachedDataset, source: CalibrateSource) -> NDArray[np.int64]:
    """Give the rows of the split and the categories asked for. Raises: ConfigError."""
    known = data.manifest.categories
    for name in source.category:
        if name not in known:
            raise ConfigError(
                f"--category is {name}{near(name, known)}; {data.cache.where} has "
                f"{', '.join(known)}"
            )
    splits = np.array(data.manifest.column("split"))
    categories = np.array(data.manifest.column("category"))
    taken = np.isin(categories, source.category or known)
    taken &= np.full(len(splits), True) if source.split is None else splits == source.split
    if not taken.any():
        raise ConfigError(f"{data.cache.where} has no such images of the split {source.split}")
    return np.flatnonzero(taken)


def _usable(data: CachedDataset, guides: AnyDetector, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out copies and what a memory holds, and say so.

    Raises: DatasetError for an image with two labels, or where none is left.
    """
    held, labels = held_images(guides), data.manifest.labels
    ids = data.manifest.column("image_id")
    first: dict[str, int] = {}
    for row in rows.tolist():
        if labels[first.setdefault(ids[row], row)] != labels[row]:
            paths = data.manifest.column("image_path")
            raise DatasetError(
                f"{data.cache.where}: {paths[row]} and {paths[first[ids[row]]]} are one image, "
                "good and bad; mend the dataset and extract it again"
            )
    if len(first) < len(rows):
        say(f"{len(rows) - len(first)} images are copies of others, and count once")
    own = [row for image, row in first.items() if image not in held]
    if len(own) < len(first):
        say(f"{len(first) - len(own)} images are in the memory itself and left out")
    if not own:
        raise DatasetError(
            f"no image of {data.cache.where} is left: all are in the memory {guides.id}; take "
            "another --split or --dataset, or --good FOLDER"
        )
    return np.array(own, np.int64)


def _compute(
    detector: Detector, data: CachedDataset, rows: NDArray[np.int64], scoring: ScoreConfig
) -> NDArray[np.float32]:
    """Score cached images."""
    made = []
    with bar("Judging", len(rows)) as advance:
        for block in np.array_split(rows, -(-len(rows) // _IMAGES_A_BLOCK)):
            made.append(compute(detector, data, block, [scoring.pooling])[1][0])
            advance(len(block))
    return np.concatenate(made)


def _fitted_keys(guides: AnyDetector) -> set[str]:
    """Give the keys of the caches that a detector's guides were fitted on."""
    parts = [one.document for one in singles(guides)]
    return {one.parents.cache.key for one in parts if isinstance(one, GuidesDocument)}
