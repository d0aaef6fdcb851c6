"""Open the cache that a memory is made from: the one that holds normal images to learn from."""

from collections.abc import Sequence

from cache.find import CacheInfo, find_caches, read_record, told_apart
from cache.objects import Objects
from pipeline.backbones.presets import PRESETS
from pipeline.backbones.spec import BackboneSpec, slug
from pipeline.chosen import in_words, meant_caches
from pipeline.configs import FitMemorySource
from pipeline.fitting.memory import normal_rows
from pipeline.inputs import CachedDataset, open_dataset
from spg_core.errors import NotInStore, StoreError

_NAMES = (*PRESETS, "gabor")
"""Backbones whose folder has the name that a user types."""


def open_normal_images(store: Objects, source: FitMemorySource) -> CachedDataset:
    """Open the cache that a source means: of several, the one with normal train images.

    Raises: as `open_dataset`; StoreError where none of several has such images, or more than one.
    """
    found = [one for one in find_caches(store, source.dataset) if one.state == "complete"]
    backbone = source.backbone or _only_backbone(store, source.dataset, found)
    own = [one for one in found if one.backbone == slug(backbone)]
    if in_words(source):
        meant = meant_caches(store, source.dataset, backbone, source, source.key)
        own = [one for one in own if one.key in {record.key for record in meant}]
        if len(own) == 1:
            return open_dataset(store, source.dataset, backbone, own[0].key)
    if source.key is not None or len(own) < 2:
        return open_dataset(store, source.dataset, backbone, source.key)
    opened = [open_dataset(store, source.dataset, backbone, one.key) for one in own]
    fit = [one for one in opened if _has_normal_images(one)]
    if len(fit) == 1:
        return fit[0]
    asked = f"{source.dataset}/{backbone} in {store.where}"
    if not fit:
        raise StoreError(
            f"none of the {len(own)} caches of {asked} holds normal images of the train split; "
            "extract them with --split train"
        )
    keys = {one.cache.key for one in fit}
    told = told_apart([read_record(store, one.folder) for one in own if one.key in keys])
    raise StoreError(f"{asked} has normal train images in several caches, choose a --key: {told}")


def _has_normal_images(data: CachedDataset) -> bool:
    return any(len(normal_rows(data, name)) for name in data.manifest.categories)


def _only_backbone(store: Objects, dataset: str, found: Sequence[CacheInfo]) -> str:
    """Give the name of the one backbone that a dataset was cached by."""
    folders = list(dict.fromkeys(one.backbone for one in found))
    match folders:
        case [only] if only in _NAMES:
            return only
        case [only]:
            return _as_typed(only, open_dataset(store, dataset, only, found[0].key).spec)
        case []:
            raise NotInStore(
                f"no complete cache of {dataset!r} in {store.where}; make one with `spg-pipe "
                "extract --split train`"
            )
        case several:
            raise StoreError(
                f"{dataset} in {store.where} is cached by several backbones, choose one by "
                f"--backbone: {', '.join(several)}"
            )


def _as_typed(folder: str, spec: BackboneSpec) -> str:
    """Give the name that a user types for a backbone of a library, from its folder's."""
    start = f"{spec.library}-"
    match spec.library:
        case "timm":
            name = f"timm:{folder.removeprefix(start)}"
        case _:
            tag = folder.removeprefix(f"{start}{slug(spec.model)}-")
            name = f"{spec.library}:{spec.model}/{tag}"
    if slug(name) != folder:
        raise StoreError(f"give --backbone: no name of one can be told from the folder {folder}")
    return name
