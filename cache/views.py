"""An open cache through other libraries: as a Zarr group and as lazy dask arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.layout import GROUP, IMAGES_PER_SHARD, array_dtype
from cache.reader import TokenCache
from spg_core.errors import StoreError


def open_zarr(cache: TokenCache) -> Any:
    """Open a cache's `tokens.zarr` with zarr-python, read-only; digests are not checked this way.

    Returns:
        A `zarr.Group` with `tokens`, and `cls` and `masks` where the cache has them.
    """
    import zarr

    name = f"{cache.folder}/{GROUP}"
    path = cache.objects.local_path(name)
    if path is not None:
        return zarr.open_group(path, mode="r")
    from zarr.storage import ObjectStore

    from cache.remote_objects import RemoteObjects

    remote = RemoteObjects(f"{cache.objects.where}/{name}", read_only=True)
    return zarr.open_group(ObjectStore(remote.store, read_only=True), mode="r")


def as_dask_array(cache: TokenCache, array: str = "tokens") -> Any:
    """Return an array of a cache as a lazy `dask.array`, one block a shard, digests checked.

    Raises:
        StoreError: the cache has no such array.
    """
    import dask.array

    if array not in cache.geometry.arrays:
        raise StoreError(f"{cache.where} has no {array}, it has {', '.join(cache.geometry.arrays)}")
    item = cache.geometry.item_shape(array)
    chunks = (IMAGES_PER_SHARD, *item)
    return dask.array.from_array(  # type: ignore[no-untyped-call]
        _LazyArray(cache, array), chunks=chunks, asarray=False, name=f"{array}-{cache.key}"
    )


class _LazyArray:
    """What dask needs of an array: shape, dtype and slices; reading checks the digests."""

    def __init__(self, cache: TokenCache, array: str) -> None:
        self._cache = cache
        self._array = array
        self.shape = (cache.n_images, *cache.geometry.item_shape(array))
        self.dtype = array_dtype(array)
        self.ndim = len(self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        rows, *rest = index
        values: NDArray[Any] = self._cache.read_rows(self._array, rows)
        return values[(np.s_[:], *rest)]
