"""The caches that a detector's parts take: one dataset, image by image the same, by each backbone
and layer.

Which cache a part takes follows from what its tokens are; a key is needed only where the same
tokens of other images (another split, say) lie beside them.
"""

from collections.abc import Sequence
from dataclasses import replace

from cache.find import read_record, resolve_caches
from cache.layout import RECORD
from cache.objects import Objects
from cache.record import CacheRecord
from pipeline.backbones.spec import BackboneSpec, require_same_tokens, slug
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.terminal.progress import say
from spg_core.errors import ArtifactError, NotInStore, StoreError

_ALIKE = ("image_id", "category", "label", "mask_id")
"""Columns of the manifest in which caches of one dataset have to agree."""


def open_sources(
    store: Objects,
    dataset: str,
    specs: Sequence[BackboneSpec],
    key: str | None = None,
    split: str = "test",
) -> CachedDataset:
    """Open the caches of a dataset that hold the tokens of some specs; the first is the main one.

    Args:
        store: where they are.
        dataset: by its name in the store.
        specs: of the parts; equal ones share a cache.
        key: of one of the caches, or its start: the others are those of the same images.
        split: of several sets of images, without a key the one that has images of this is meant.

    Raises:
        NotInStore: tokens are missing; names the command that makes them.
        ArtifactError: the only cache there is holds other tokens, or caches hold other images.
        IncompleteCache, StoreError, CorruptStore: partial, one of several, or damaged.
    """
    distinct: list[BackboneSpec] = []
    for spec in specs:
        if all(spec.covers() != one.covers() for one in distinct):
            distinct.append(spec)
    keys = _keys(store, dataset, distinct, key, split)
    [main, *others] = [
        open_dataset(store, dataset, spec.name, one)
        for spec, one in zip(distinct, keys, strict=True)
    ]
    for spec, one in zip(distinct, [main, *others], strict=True):
        require_same_tokens(
            spec.covers(), one.spec.covers(), f"the detector ({_says(spec)})", one.cache.where
        )
    return join([main, *others])


def join(datasets: Sequence[CachedDataset]) -> CachedDataset:
    """Give the first of some caches of one dataset with all others beside it, each once.

    Raises: ArtifactError where they hold other images, or say something else of them.
    """
    main = datasets[0]
    caches = {one.cache.key: one for data in datasets for one in (data, *data.others)}
    others = [replace(one, others=()) for key, one in caches.items() if key != main.cache.key]
    for other in others:
        for column in _ALIKE:
            if main.manifest.table[column].to_pylist() != other.manifest.table[column].to_pylist():
                raise ArtifactError(
                    f"{main.cache.where} and {other.cache.where} are not of the same images: "
                    f"they differ in {column}; extract {main.dataset} for both with the same "
                    "options"
                )
    return replace(main, others=tuple(others))


def _keys(
    store: Objects, dataset: str, specs: Sequence[BackboneSpec], key: str | None, split: str
) -> list[str | None]:
    """Choose the key of each spec's cache; None where there is nothing to choose from."""
    if len(specs) == 1 and key is not None:
        return [key]
    candidates = [_candidates(store, dataset, spec) for spec in specs]
    if len(specs) == 1 and len(candidates[0]) <= 1 and _n_caches(store, dataset, specs[0]) <= 1:
        return [None]  # a look inside says what it is, or that there is none
    for spec, found in zip(specs, candidates, strict=True):
        if not found:
            raise NotInStore(
                f"no tokens of {dataset!r} by {_says(spec)} in {store.where}; make them with "
                f"`{extract_command(dataset, spec)}`"
            )
    shared = set.intersection(*({_images(one) for one in found} for found in candidates))
    if key is not None:
        named = {_images(one) for found in candidates for one in found if one.key.startswith(key)}
        shared &= named
    if len(shared) > 1 and key is None:
        shared = _of_split(split, store, dataset, specs[0], candidates[0], shared)
    if len(shared) == 1:
        [images] = shared
        return [next(one.key for one in found if _images(one) == images) for found in candidates]
    listed = "; ".join(
        f"{_says(spec)}: {', '.join(one.key for one in found)}"
        for spec, found in zip(specs, candidates, strict=True)
    )
    if shared:
        raise StoreError(
            f"{dataset} in {store.where} means several caches, choose a key with --key: {listed}"
        )
    raise ArtifactError(
        f"the parts' caches of {dataset} in {store.where} are not of the same images"
        f"{f', or none has the key {key}' if key else ''}: {listed}; extract one of them again"
    )


def _of_split(
    split: str,
    store: Objects,
    dataset: str,
    spec: BackboneSpec,
    candidates: Sequence[CacheRecord],
    shared: set[str],
) -> set[str]:
    """Give those of several sets of images that hold some of a split, all where none does."""
    having = [
        one
        for one in candidates
        if _images(one) in shared
        and split in open_dataset(store, dataset, spec.name, one.key).manifest.column("split")
    ]
    found = {_images(one) for one in having}
    if len(found) == 1:
        say(f"{dataset}: cache {having[0].key}, the one with {split} images")
    return found or shared


def _candidates(store: Objects, dataset: str, spec: BackboneSpec) -> list[CacheRecord]:
    """List the complete caches that hold the tokens of a spec."""
    found = []
    for name in resolve_caches(store, f"{dataset}/{slug(spec.name)}/"):
        if store.size(f"{name.folder}/{RECORD}") is not None:
            record = read_record(store, name.folder)
            if record.covers.get("backbone") == spec.covers():
                found.append(record)
    return found


def _n_caches(store: Objects, dataset: str, spec: BackboneSpec) -> int:
    return len(resolve_caches(store, f"{dataset}/{slug(spec.name)}/"))


def _images(record: CacheRecord) -> str:
    return str(record.covers.get("images"))


def _says(spec: BackboneSpec) -> str:
    """Say in words whose tokens are meant."""
    layer = "its last layer" if spec.layer is None else f"layer {spec.layer}"
    return f"{spec.name}, {layer}, {spec.height} x {spec.width} px"


def extract_command(dataset: str, spec: BackboneSpec) -> str:
    """Write the command that makes a dataset's tokens of a spec."""
    layer = [] if spec.layer is None else ["--layer", str(spec.layer)]
    words = ["spg-pipe extract --backbone", spec.name, "--image-size", str(spec.height), *layer]
    return " ".join([*words, "--dataset LAYOUT --name", dataset, "--root DIR"])
