"""Read a complete cache: tokens, CLS tokens, masks and the manifest, each byte checked once.

Shards are files mapped into memory: those of a local store, or the mirror of a remote one. The
size of a file is compared with `cache.json` before it is mapped, and the CRC-32C of an image's
chunk when it is first touched; wrong bytes raise `CorruptStore` and are never returned.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.find import choose_cache
from cache.layout import IMAGES_PER_SHARD, MANIFEST, array_dtype, cache_folder, shard_name
from cache.mirror import Mirror
from cache.objects import SMALL_OBJECT_BYTES, Objects
from cache.open_shards import OpenShards
from cache.record import CacheRecord
from cache.shard import MappedShard, decode_mask
from spg_core.errors import CorruptStore, NotInStore, StoreError

DEFAULT_MEMORY_BYTES = 4 << 30

Stored = NDArray[Any]
"""Float16, or for masks uint8, which only the array's name tells."""
Rows = slice | Sequence[int] | NDArray[np.integer]


def open_cache(
    objects: Objects,
    dataset: str,
    backbone: str,
    key: str | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    mirror_folder: Path | None = None,
    mirror_bytes: int | None = None,
) -> "TokenCache":
    """Open a complete cache.

    Args:
        objects: the store.
        dataset: its name in the store.
        backbone: its name in the store.
        key: the key or its first digits; needed where several caches are complete.
        memory_bytes: how much memory streaming may take for tokens.
        mirror_folder: where the shards of a remote store are kept, `cache.mirror` has a default.
        mirror_bytes: how large that folder may get, likewise.

    Raises:
        NotInStore, IncompleteCache, StoreError: none, or none complete, or several are meant.
        CorruptStore: `cache.json` is not what was written.
    """
    record = choose_cache(objects, dataset, backbone, key)
    folder = cache_folder(dataset, backbone, record.key)
    is_local = objects.local_path(folder) is not None
    mirror = None if is_local else Mirror(objects, folder, record, mirror_folder, mirror_bytes)
    return TokenCache(objects, folder, record, memory_bytes, mirror)


class TokenCache:
    """An open cache. Reading is safe from several threads."""

    def __init__(
        self,
        objects: Objects,
        folder: str,
        record: CacheRecord,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        mirror: Mirror | None = None,
    ) -> None:
        self.objects = objects
        self.folder = folder
        self.record = record
        self.memory_bytes = memory_bytes
        self.mirror = mirror
        self.key = record.key
        self.covers: Mapping[str, object] = record.covers
        geometry = record.geometry
        self.geometry = geometry
        self.n_images = geometry.n_images
        self.tokens_per_image = geometry.tokens_per_image
        self.d_model = geometry.d_model
        self.has_cls = geometry.has_cls
        self.mask_size = geometry.mask_size
        self._shards = OpenShards(objects, folder, record, mirror)
        self._loading = Lock()
        self._resident: NDArray[np.float16] | None = None

    def __repr__(self) -> str:
        shape = f"{self.n_images} images x {self.tokens_per_image} tokens x {self.d_model}"
        return f"TokenCache {self.key}: {shape}, float16\n  {self.where}"

    def __reduce__(self) -> tuple[type["TokenCache"], tuple[object, ...]]:
        arguments = (self.objects, self.folder, self.record, self.memory_bytes, self.mirror)
        return TokenCache, arguments

    @property
    def where(self) -> str:
        """Return the cache's full path or URL."""
        return f"{self.objects.where}/{self.folder}"

    @property
    def n_tokens(self) -> int:
        """Patch tokens of all images together."""
        return self.n_images * self.tokens_per_image

    @property
    def tokens_bytes(self) -> int:
        """Bytes of all patch tokens."""
        return self.n_images * self.geometry.item_bytes("tokens")

    def manifest_bytes(self) -> bytes:
        """Return `manifest.parquet`. Raises: StoreError, CorruptStore if it was not written so."""
        name = f"{self.folder}/{MANIFEST}"
        shown = f"{self.objects.where}/{name}"
        try:
            limit = min(self.record.manifest_bytes, SMALL_OBJECT_BYTES)
            data = self.objects.get(name, max_bytes=limit)
        except NotInStore as error:
            raise CorruptStore(f"{shown} is missing from a complete cache") from error
        if hashlib.sha256(data).hexdigest() != self.record.manifest_sha256:
            raise CorruptStore(f"{shown} was edited or torn: its digest is not that in cache.json")
        return data

    def tokens(self, rows: Rows) -> NDArray[np.float16]:
        """Return the patch tokens of image rows, `(n, patch, dim)` float16."""
        return self.read_rows("tokens", rows)

    def cls(self, rows: Rows) -> NDArray[np.float16]:
        """Return the CLS tokens of image rows, `(n, dim)` float16. Raises: StoreError."""
        return self.read_rows("cls", rows)

    def masks(self, rows: Rows) -> NDArray[np.uint8]:
        """Return the masks of image rows, `(n, height, width)` of 0 and 1. Raises: StoreError."""
        return self.read_rows("masks", rows)

    def gather_sorted(self, token_indices: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """Fill `out`, `(n, dim)`, with tokens whose indices ascend; in one sweep over the shards.

        Indices are trusted: they come from an order made for this cache.
        """
        for tokens, inside, here in self._by_shard(token_indices):
            # "clip" because "raise" would copy through a buffer; nothing is out of bounds.
            np.take(tokens, inside, axis=0, out=out[here], mode="clip")

    def touch_sorted(self, token_indices: NDArray[np.int64]) -> None:
        """Verify tokens whose indices ascend, and have the system read them from the disk."""
        for tokens, inside, _ in self._by_shard(token_indices):
            for end in (0, -1):  # a token may lie across the border of two pages
                tokens[inside, end]  # a copy of one value each

    def _by_shard(
        self, token_indices: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64], slice]]:
        """Yield each shard's map `(tokens, dim)`, the indices in it, and where these are listed."""
        per_shard = IMAGES_PER_SHARD * self.tokens_per_image
        first, last = int(token_indices[0]) // per_shard, int(token_indices[-1]) // per_shard
        borders = np.searchsorted(token_indices, np.arange(first, last + 2) * per_shard).tolist()
        for shard, start, stop in zip(
            range(first, last + 1), borders[:-1], borders[1:], strict=True
        ):
            if start < stop:
                inside = token_indices[start:stop] - shard * per_shard
                rows = inside // self.tokens_per_image
                yield self.shard_tokens(shard, rows), inside, slice(start, stop)

    def shard_tokens(self, shard: int, local_rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the map `(tokens, dim)` of a shard, `local_rows` of its images verified."""
        mapped = self._shards.verified("tokens", shard, local_rows)
        return mapped.values.reshape(-1, self.d_model)

    def read_ahead(self, shards: Sequence[int]) -> None:
        """Say which shards of tokens will be read, in order; a remote cache fetches them early."""
        if self.mirror is not None:
            self.mirror.read_ahead([shard_name("tokens", shard) for shard in shards])

    def resident_tokens(self) -> NDArray[np.float16]:
        """Return all tokens, `(tokens, dim)`, read into memory once and kept; do not write."""
        with self._loading:
            if self._resident is None:
                self.read_ahead(range(self.geometry.n_shards))
                tokens = np.empty((self.n_tokens, self.d_model), np.float16)
                per_shard = IMAGES_PER_SHARD * self.tokens_per_image
                for shard in range(self.geometry.n_shards):
                    rows = self.geometry.shard_rows(shard)
                    start = shard * per_shard
                    tokens[start : start + per_shard] = self.shard_tokens(
                        shard, np.arange(len(rows))
                    )
                self._shards.close()
                self._resident = tokens
            return self._resident

    def read_rows(self, array: str, rows: Rows) -> Stored:
        """Return image rows of the array called `tokens`, `cls` or `masks`, verified."""
        if array not in self.geometry.arrays:
            raise StoreError(f"{self.where} has no {array}")
        asked = np.arange(self.n_images)[rows] if isinstance(rows, slice) else np.asarray(rows)
        indices = _checked_rows(asked, self.n_images)
        shape = (len(indices), *self.geometry.item_shape(array))
        out: Stored = np.empty(shape, array_dtype(array))
        shards = indices // IMAGES_PER_SHARD
        for shard in np.unique(shards).tolist():
            chosen = np.flatnonzero(shards == shard)
            local = indices[chosen] - shard * IMAGES_PER_SHARD
            mapped = self._shards.verified(array, shard, local)
            if array == "masks":
                self._decode_masks(shard, mapped, local, chosen, out)
            else:
                for position, row in zip(chosen.tolist(), local.tolist(), strict=True):
                    out[position] = mapped.values[row]
        return out

    def _decode_masks(
        self,
        shard: int,
        mapped: MappedShard,
        local: NDArray[np.int64],
        positions: NDArray[np.int64],
        out: NDArray[np.uint8],
    ) -> None:
        assert self.mask_size is not None
        for position, row in zip(positions.tolist(), local.tolist(), strict=True):
            try:
                out[position] = decode_mask(mapped.chunk(row), self.mask_size)
            except StoreError as error:
                raise self._shards.corrupt("masks", shard, f"image row {row}: {error}") from error


def _checked_rows(rows: NDArray[np.integer], n_images: int) -> NDArray[np.int64]:
    if rows.size == 0:
        return np.empty(0, np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise StoreError(f"image row indices are a list of whole numbers, got {rows.dtype}")
    if rows.min() < 0 or rows.max() >= n_images:
        raise StoreError(f"image row {rows.min()} to {rows.max()} asked for, there are {n_images}")
    return rows.astype(np.int64)
