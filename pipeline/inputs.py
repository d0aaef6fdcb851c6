"""Open what a stage reads: a store, a finished cache and its manifest."""

from dataclasses import dataclass

from cache.find import find_caches, held_caches
from cache.objects import Objects
from cache.reader import TokenCache, open_cache
from manifests.table import Manifest, manifest_from_bytes
from pipeline.artifacts.terms import CacheParent
from pipeline.backbones.spec import BackboneSpec, require_same_tokens, slug, spec_from_covers
from spg_core.errors import CorruptStore, NotInStore
from spg_core.nearest import near


@dataclass(frozen=True)
class CachedDataset:
    """A complete token cache with its manifest, read and checked."""

    dataset: str
    backbone: str
    """As the user named it."""
    cache: TokenCache
    manifest: Manifest
    spec: BackboneSpec
    others: "tuple[CachedDataset, ...]" = ()
    """The same images by other backbones or layers."""

    def of(self, spec: BackboneSpec) -> "CachedDataset":
        """Give the cache, this or another, of the tokens that a spec describes.

        Raises: ArtifactError where there is none.
        """
        for one in (self, *self.others):
            if one.spec.covers() == spec.covers():
                return one
        require_same_tokens(spec.covers(), self.spec.covers(), "the detector", self.cache.where)
        return self

    @property
    def parent(self) -> CacheParent:
        """What an artifact made from this cache records about it."""
        return CacheParent(dataset=self.dataset, backbone=self.backbone, key=self.cache.key)


def open_dataset(
    store: Objects, dataset: str, backbone: str, key: str | None = None
) -> CachedDataset:
    """Open the one complete cache of a dataset and a backbone; `key` or its start chooses.

    Raises:
        NotInStore: there is none; says how to make it.
        IncompleteCache, StoreError, CorruptStore: it is partial, one of several, or damaged.
    """
    try:
        cache = open_cache(store, dataset, slug(backbone), key)
    except NotInStore:
        if find_caches(store, dataset, slug(backbone)):
            raise  # another key than those there are
        raise NotInStore(
            f"no tokens of {dataset!r} by {backbone!r} in {store.where}, which holds "
            f"{held_caches(store)}{_near(store, dataset, backbone)}; make them with `spg-pipe "
            f"extract --backbone {backbone} --dataset {dataset} --root DIR`"
        ) from None
    where = f"{cache.where}/manifest.parquet"
    manifest = manifest_from_bytes(cache.manifest_bytes(), where, n_images=cache.n_images)
    spec = spec_from_covers(cache.covers.get("backbone", {}), backbone)
    _require_shapes(cache, spec)
    return CachedDataset(dataset, backbone, cache, manifest, spec)


def _near(store: Objects, dataset: str, backbone: str) -> str:
    """Say which dataset, or else which backbone, may have been meant."""
    held = find_caches(store)
    datasets, backbones = {info.dataset for info in held}, {info.backbone for info in held}
    return near(dataset, datasets - {dataset}) or near(slug(backbone), backbones - {slug(backbone)})


def _require_shapes(cache: TokenCache, spec: BackboneSpec) -> None:
    """Refuse a cache whose arrays are not those of its backbone. Raises: CorruptStore."""
    told = (spec.grid.tokens_per_image, spec.d_model)
    held = (cache.tokens_per_image, cache.d_model)
    if told != held:
        raise CorruptStore(
            f"{cache.where}/cache.json: the backbone's grid of {spec.grid} and d_model of "
            f"{spec.d_model} are not the arrays' {held[0]} tokens of {held[1]}"
        )
    if cache.mask_size not in (None, (spec.height, spec.width)):
        raise CorruptStore(
            f"{cache.where}/cache.json: masks are {cache.mask_size}, the backbone's input is "
            f"{(spec.height, spec.width)}"
        )
