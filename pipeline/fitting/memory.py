"""Fit-memory: keep the tokens of a few normal images of each category, as the cache has them.

Which images is decided by the seed and their own bytes alone. So fewer shots are part of more, the
caches of all layers give the same images, and no other image of the dataset changes the choice.

Axes: n tokens; P patches; d d_model.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.objects import Objects
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    make_once,
    save_artifact,
    settings,
)
from pipeline.artifacts.memory import CategoryMemory, MemoryDocument, MemoryParents
from pipeline.artifacts.terms import Backbone
from pipeline.backbones.spec import slug
from pipeline.configs import FitMemoryConfig
from pipeline.inputs import CachedDataset
from pipeline.machine.device import resolve_device
from pipeline.terminal.progress import bar
from spg_core.errors import FitError
from spg_core.guides import unit
from spg_core.memory import coreset

MOST_TOKENS = 1_000_000
"""Of one category; asking an image of 784 tokens against so many takes seconds on a CPU."""


@dataclass(frozen=True)
class _Remembered:
    """What is kept of one category."""

    rows: NDArray[np.int64]
    """Of its images, in the order in which they were chosen."""
    tokens: Tensor
    """`(n, d)` float16, as in the cache."""
    origins: Tensor
    """`(n, 2)` int32: row of the image, patch."""


def fit_memory(
    store: Objects,
    data: CachedDataset,
    config: FitMemoryConfig,
    *,
    direct: bool = True,
    name: str | None = None,
) -> Artifact[MemoryDocument]:
    """Keep normal tokens of each category of a cache, or find those the same request kept before.

    `latest` means them from then on, unless they are only a step (`direct`) of something else;
    `name` means them, too.

    Raises: ArtifactError for a name that means another, FitError where a category has too few
        normal images or too many tokens, StoreError, CorruptStore.
    """
    identifier = memory_id(data, config)
    return make_once(
        store,
        MemoryDocument,
        identifier,
        lambda: {identifier: _fit(store, data, config, identifier)},
        direct=direct,
        name=name,
    )


def memory_id(data: CachedDataset, config: FitMemoryConfig) -> str:
    """Name the memory that a config makes of a cache."""
    shots = f"{config.shots}-shot" if config.shots else "all"
    stem = f"{data.dataset}-{slug(data.backbone)}-{shots}"
    return artifact_id(stem, {"cache": data.cache.key, "config": settings(config)})


def normal_rows(data: CachedDataset, category: str) -> NDArray[np.int64]:
    """Give the rows of a category's normal images of the train split, ascending."""
    rows = data.manifest.rows_of(category)
    is_train = np.array(data.manifest.column("split"))[rows] == "train"
    chosen: NDArray[np.int64] = rows[is_train & (data.manifest.labels[rows] == 0)]
    return chosen


def choose_shots(data: CachedDataset, category: str, config: FitMemoryConfig) -> NDArray[np.int64]:
    """Give the rows of the images that are remembered, in the order of a seeded digest of each.

    Raises: FitError where there are too few.
    """
    rows = normal_rows(data, category)
    if len(rows) < max(1, config.shots):
        remedy = (
            "take fewer, or all by --shots 0" if len(rows) else "extract them with --split train"
        )
        raise FitError(
            f"{data.cache.where} has {len(rows)} normal images of {category} in the train split, "
            f"--shots asks for {config.shots or 'all'}; {remedy}"
        )
    ids = data.manifest.column("image_id")
    order = sorted(rows.tolist(), key=lambda row: _rank(config.seed, str(ids[row])))
    return np.array(order[: config.shots or None], np.int64)


def _rank(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed} {image_id}".encode()).digest()


def _fit(
    store: Objects, data: CachedDataset, config: FitMemoryConfig, identifier: str
) -> Artifact[MemoryDocument]:
    store.check_writable()
    categories = data.manifest.categories
    chosen = {name: choose_shots(data, name, config) for name in categories}
    for name, rows in chosen.items():
        _require_searchable(data, name, rows, config)
    kept: dict[str, _Remembered] = {}
    with bar("Remembering", len(categories)) as advance:
        for name, rows in chosen.items():
            kept[name] = _remember(data, rows, config)
            advance()
    document = MemoryDocument(
        id=identifier,
        config=config,
        parents=MemoryParents(cache=data.parent),
        backbone=Backbone(name=data.backbone, covers=data.spec.covers()),
        categories={name: _told(data, one) for name, one in kept.items()},
    )
    tensors = {
        "tokens": torch.cat([one.tokens for one in kept.values()]),
        "origins": torch.cat([one.origins for one in kept.values()]),
    }
    return save_artifact(store, document, tensors)


def _require_searchable(
    data: CachedDataset, name: str, rows: NDArray[np.int64], config: FitMemoryConfig
) -> None:
    """Refuse a memory that an exact search would be slow in. Raises: FitError."""
    held = len(rows) * data.cache.tokens_per_image
    if config.n_kept(held) > MOST_TOKENS:
        raise FitError(
            f"{name} would have {config.n_kept(held)} tokens in memory, and the nearest is "
            f"searched exactly among at most {MOST_TOKENS}; give --shots "
            f"{MOST_TOKENS // data.cache.tokens_per_image}, or a small --coreset such as "
            f"{MOST_TOKENS // 1000}: each token that it keeps takes a pass over all {held}"
        )


def _remember(data: CachedDataset, rows: NDArray[np.int64], config: FitMemoryConfig) -> _Remembered:
    n_patches = data.cache.tokens_per_image
    tokens = torch.from_numpy(data.cache.tokens(rows)).flatten(0, 1)
    if not bool(tokens.isfinite().all()):
        raise FitError(
            f"{data.cache.where} holds tokens of normal images that are not finite: they did not "
            "fit in float16; take another layer or norm"
        )
    n_kept = config.n_kept(len(tokens))
    kept = torch.arange(len(tokens))
    if n_kept < len(tokens):
        where = resolve_device(config.device)
        kept = coreset(unit(tokens.to(where).float()), n_kept).cpu()
    origins = torch.stack([torch.from_numpy(rows)[kept // n_patches], kept % n_patches], dim=1)
    return _Remembered(rows, tokens[kept], origins.int())


def _told(data: CachedDataset, kept: _Remembered) -> CategoryMemory:
    ids = data.manifest.column("image_id")
    return CategoryMemory(
        images=[str(ids[row]) for row in kept.rows],
        rows=kept.rows.tolist(),
        tokens=len(kept.tokens),
    )
