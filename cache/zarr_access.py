"""What a store holds through other libraries: zarr-python's stores and groups, dask's arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.layout import GROUP, IMAGES_PER_SHARD, array_dtype
from cache.local_objects import LocalObjects
from cache.objects import Objects
from cache.reader import TokenCache
from spg_core.errors import StoreError


def open_zarr(cache: TokenCache) -> Any:
    """Open a cache's `tokens.zarr` with zarr-python, read-only; digests are not checked this way.

    Returns:
        A `zarr.Group` with `tokens`, and `cls` and `masks` where the cache has them.
    """
    import zarr

    place = zarr_store(cache.objects, f"{cache.folder}/{GROUP}", read_only=True)
    return zarr.open_group(place, mode="r")


def as_dask_array(cache: TokenCache, array: str = "tokens", as_float32: bool = False) -> Any:
    """Return an array of a cache as a lazy `dask.array`, one block a shard, digests checked.

    It is indexed as any dask array, so also where dask differs from NumPy: True stands for 1, and
    of several lists of indices one has to be asked for after the other.

    Args:
        cache: an open cache.
        array: `tokens`, `cls` or `masks`.
        as_float32: give float32 instead of the stored dtype. Sums and means of float16 overflow
            beyond 65504, so ask for this before `.sum()`, `.mean()` or `.std()`.

    Raises:
        StoreError: the cache has no such array.
    """
    import dask.array
    import dask.base

    if array not in cache.geometry.arrays:
        raise StoreError(f"{cache.where} has no {array}, it has {', '.join(cache.geometry.arrays)}")
    lazy = _LazyArray(cache, array, np.dtype(np.float32) if as_float32 else array_dtype(array))
    # Two stores may hold one key with different bytes, so the store is part of the name.
    name = f"{array}-{dask.base.tokenize(cache.where, cache.key, array, as_float32)}"
    chunks = (IMAGES_PER_SHARD, *cache.geometry.item_shape(array))
    return dask.array.from_array(  # type: ignore[no-untyped-call]
        lazy, chunks=chunks, asarray=False, name=name
    )


class _LazyArray:
    """What dask needs of an array: shape, dtype and indexing; reading checks the digests."""

    def __init__(self, cache: TokenCache, array: str, dtype: np.dtype[Any]) -> None:
        self._cache = cache
        self._array = array
        self.shape = (cache.n_images, *cache.geometry.item_shape(array))
        self.dtype = dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        rows, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(rows, int | np.integer):
            row = int(rows) + (self.shape[0] if rows < 0 else 0)
            chosen = self._cache.read_rows(self._array, [row])[(0, *rest)]
        else:
            chosen = self._cache.read_rows(self._array, rows)[(np.s_[:], *rest)]
        values: NDArray[Any] = np.asarray(chosen).astype(self.dtype, copy=False)
        return values


def zarr_store(objects: Objects, name: str, read_only: bool = False) -> Any:
    """Return the folder `name` of a store as zarr-python takes it, a `StorePath`."""
    import zarr.storage

    if isinstance(objects, LocalObjects):
        folder = zarr.storage.LocalStore(objects.local_path(name), read_only=read_only)
        return zarr.storage.StorePath(folder)
    from cache.remote_objects import RemoteObjects  # obstore takes a while to import

    assert isinstance(objects, RemoteObjects), f"no Zarr store for {objects!r}"
    store = zarr.storage.ObjectStore(objects.store, read_only=read_only)
    return zarr.storage.StorePath(store, name)
