"""Which layers of a backbone are cached of two datasets: what several methods can be fitted on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cache.key import canonical_json
from cache.objects import Objects
from pipeline.chosen import meant_caches
from pipeline.configs import ReproduceConfig
from pipeline.fitting.memory import normal_rows
from pipeline.inputs import CachedDataset, open_dataset
from spg_core.errors import NotInStore, StoreError


@dataclass(frozen=True)
class CachedLayer:
    """One layer that is cached of both datasets."""

    aux: CachedDataset
    """Of the first: it holds masked defects."""
    target: CachedDataset
    """Of the second: it holds test images."""
    train: CachedDataset | None
    """Of the second: it holds normal train images; None where no cache does."""


def cached_layers(store: Objects, config: ReproduceConfig) -> list[CachedLayer]:
    """Give every layer that is cached of both datasets, from the first to the last.

    A key chooses images, not the layer: caches of the same ones go with it.

    Raises: NotInStore where there is none, StoreError where a layer has several caches to choose
        from, CorruptStore.
    """
    aux = _same_images(_open_all(store, config.aux, config), config.aux_key)
    every = _open_all(store, config.target, config)
    target = _same_images(every, config.target_key)
    fits, tests = _by_tokens(aux, _has_masks), _by_tokens(target, _has_test_images)
    trains = _by_tokens(every, _has_normal_images)
    shared = [tokens for tokens in fits if tokens in tests]
    if not shared:
        raise NotInStore(
            f"{store.where} has no layer of {config.backbone} that is cached both of {config.aux}, "
            f"with masks, and of {config.target}; make them with `spg-pipe extract --split test`"
        )
    found = [CachedLayer(fits[one], tests[one], trains.get(one)) for one in shared]
    return sorted(found, key=_depth)


def _depth(one: CachedLayer) -> float:
    layer = one.aux.spec.layer
    return float("inf") if layer is None else layer


def _open_all(store: Objects, dataset: str, config: ReproduceConfig) -> list[CachedDataset]:
    """Open the complete caches of a dataset, those that --layer and the like mean if any do."""
    records = meant_caches(store, dataset, config.backbone, config)
    return [open_dataset(store, dataset, config.backbone, one.key) for one in records]


def _same_images(found: Sequence[CachedDataset], key: str | None) -> list[CachedDataset]:
    """Give the caches of the images that the cache of a key, or of its start, is of."""
    if key is None:
        return list(found)
    named = [one.cache.covers.get("images") for one in found if one.cache.key.startswith(key)]
    return [one for one in found if one.cache.covers.get("images") in named]


def _by_tokens(
    found: Sequence[CachedDataset], wanted: Callable[[CachedDataset], bool]
) -> dict[bytes, CachedDataset]:
    """Give the caches that hold what is wanted, by what their tokens are.

    Raises: StoreError for two of the same tokens.
    """
    made: dict[bytes, CachedDataset] = {}
    for one in filter(wanted, found):
        other = made.setdefault(canonical_json(one.spec.covers()), one)
        if other is not one:
            raise StoreError(
                f"{one.dataset} by {one.backbone} has several caches of the same layer, "
                f"{other.cache.key} and {one.cache.key}; choose one with --aux-key or --target-key"
            )
    return made


def _has_masks(data: CachedDataset) -> bool:
    return bool(np.count_nonzero(data.manifest.table["mask_pixels"].to_numpy()))


def _has_test_images(data: CachedDataset) -> bool:
    return "test" in data.manifest.column("split")


def _has_normal_images(data: CachedDataset) -> bool:
    return any(len(normal_rows(data, name)) for name in data.manifest.categories)
