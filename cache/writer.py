"""Write a cache exactly once, by any number of processes, each killed at any moment.

The unit is a whole shard. Its objects are published create-only in the order masks, cls, tokens,
then its receipt; `cache.json` comes last. Whoever loses a race reads what is stored and writes the
receipt of that, so a receipt always describes stored bytes (a GPU may not repeat its own).
"""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import time

import numpy as np
from numpy.typing import NDArray

from cache.find import State, cache_state, read_record
from cache.key import cache_key
from cache.layout import (
    MANIFEST,
    RECORD,
    Geometry,
    array_dtype,
    cache_folder,
    shard_name,
)
from cache.objects import GRACE_SECONDS, Objects, Part, total_bytes
from cache.receipts import Receipts, describe_parts, drop_receipts
from cache.record import CacheRecord, Receipt, StoredObject, record_to_bytes
from cache.shard import encode_chunks, encode_index
from cache.zarr_group import zarr_metadata
from spg_core.errors import (
    CorruptStore,
    IncompleteCache,
    ManifestDiffers,
    NotInStore,
    StoreError,
)

_MASK_SHRINKS = 20
"""Defect masks compress 50-fold and more; the estimate of a cache's size counts on this."""
_ATTEMPTS = 3
Values = NDArray[np.float16] | NDArray[np.uint8]


class CacheWriter:
    """One cache being written. Makes nothing before the first `write_shard`."""

    def __init__(
        self,
        objects: Objects,
        dataset: str,
        backbone: str,
        covers: Mapping[str, object],
        geometry: Geometry,
    ) -> None:
        self.objects = objects
        self.covers = dict(covers)
        self.key = cache_key(covers)
        self.geometry = geometry
        self.folder = cache_folder(dataset, backbone, self.key)
        self._receipts = Receipts(objects, self.folder, geometry)
        self._started = False

    @property
    def where(self) -> str:
        """Return the cache's full path or URL."""
        return f"{self.objects.where}/{self.folder}"

    def state(self) -> State:
        """Tell how far the cache is."""
        return cache_state(self.objects, self.folder)

    def shard_rows(self, shard: int) -> range:
        """Return the images of a shard."""
        return self.geometry.shard_rows(shard)

    def pending_shards(self, progress: Callable[[int, int], None] | None = None) -> list[int]:
        """Return the shards that are still to be written, in order.

        Those that are there are read once and compared with their receipts' digests; `progress` is
        called with 1 and their number for each.
        """
        if self.state() == "complete":
            return []
        done = self._receipts.proved(progress)
        pending = [shard for shard in range(self.geometry.n_shards) if shard not in done]
        # Another process may have finished, and dropped the receipts, between our two looks.
        return [] if pending and self.state() == "complete" else pending

    @property
    def estimated_bytes(self) -> int:
        """Bytes of the whole cache: exact for tokens and cls, a guess for compressed masks."""
        return sum(self._shard_estimate(shard) for shard in range(self.geometry.n_shards))

    def needed_bytes(self) -> int:
        """Estimate the bytes that are still to be written, by the receipts that are there."""
        if self.state() == "complete":
            return 0
        done = self._receipts.stated()
        shards = range(self.geometry.n_shards)
        return sum(self._shard_estimate(shard) for shard in shards if shard not in done)

    @property
    def distrusted(self) -> frozenset[int]:
        """The shards that had a receipt that does not fit, as `pending_shards` last saw."""
        return self._receipts.distrusted

    def write_shard(
        self,
        shard: int,
        tokens: NDArray[np.float16],
        cls: NDArray[np.float16] | None = None,
        masks: NDArray[np.uint8] | None = None,
    ) -> None:
        """Publish one whole shard of n images; whoever comes second changes nothing.

        Args:
            shard: its number; `shard_rows(shard)` are its n images.
            tokens: `(n, patch, dim)` float16, finite and below 65504 in magnitude.
            cls: `(n, dim)` float16, where the cache has them.
            masks: `(n, height, width)` uint8 of 0 and 1, where the cache has them.

        Raises:
            StoreError: arrays do not fit the cache or float16, or the store is full or read-only.
        """
        items: dict[str, Values | None] = {"tokens": tokens, "cls": cls, "masks": masks}
        for array, values in items.items():
            self._check_values(array, shard, values)
        self._start()
        stored = {}
        for array in self.geometry.arrays:
            values = items[array]
            assert values is not None
            stored[array] = self._publish(array, shard, values)
        self._receipts.publish(Receipt(shard, stored))

    def finish(
        self,
        manifest: bytes,
        versions: Mapping[str, object] | None = None,
        timings: Mapping[str, object] | None = None,
    ) -> CacheRecord:
        """Publish the manifest and `cache.json`, then drop the receipts; return the record.

        Raises:
            IncompleteCache: shards are still pending.
            ManifestDiffers: another manifest was published for these tokens.
        """
        digest = hashlib.sha256(manifest).hexdigest()
        if self.state() == "complete":
            return self._check_finished(digest)
        receipts = self._receipts.settled()
        missing = [shard for shard in range(self.geometry.n_shards) if shard not in receipts]
        if missing:
            if self.state() == "complete":
                return self._check_finished(digest)
            raise IncompleteCache(f"{self.where} lacks {len(missing)} shards, first {missing[0]}")
        self._start()
        name = f"{self.folder}/{MANIFEST}"
        if not self.objects.put_new(name, [manifest]) and self.objects.get(name) != manifest:
            raise ManifestDiffers(f"{self.objects.where}/{name} is another manifest than this one")
        record = CacheRecord(
            key=self.key,
            covers=self.covers,
            geometry=self.geometry,
            receipts=tuple(receipts[shard] for shard in range(self.geometry.n_shards)),
            manifest_bytes=len(manifest),
            manifest_sha256=digest,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions or {},
            timings=timings or {},
        )
        self.objects.put_new(f"{self.folder}/{RECORD}", [record_to_bytes(record)])
        return self._check_finished(digest)

    def _check_finished(self, manifest_sha256: str) -> CacheRecord:
        record = read_record(self.objects, self.folder)
        if record.manifest_sha256 != manifest_sha256:
            raise ManifestDiffers(f"{self.where} is complete, with another manifest than this one")
        drop_receipts(self.objects, self.folder)
        return record

    def _start(self) -> None:
        """Publish the Zarr metadata and sweep old temporaries, once a process."""
        if self._started:
            return
        self.objects.check_writable()
        for name, data in zarr_metadata(self.geometry).items():
            full = f"{self.folder}/{name}"
            if not self.objects.put_new(full, [data]) and self.objects.get(full) != data:
                raise CorruptStore(
                    f"{self.objects.where}/{full} does not describe this cache; remove the "
                    "partial cache and start again"
                )
        for info in list(self.objects.temporaries(self.folder)):
            if time() - info.modified > GRACE_SECONDS:
                self.objects.delete(info.name)
        self._started = True

    def _check_values(self, array: str, shard: int, values: Values | None) -> None:
        wanted = array in self.geometry.arrays
        if (values is not None) != wanted:
            raise StoreError(f"this cache has {'' if wanted else 'no '}{array}, the shard differs")
        if values is None:
            return
        rows = self.shard_rows(shard)
        shape = (len(rows), *self.geometry.item_shape(array))
        dtype = np.dtype(np.uint8 if array == "masks" else np.float16)
        if values.shape != shape or values.dtype != dtype:
            raise StoreError(
                f"{array} of shard {shard} are {values.dtype} {values.shape}, "
                f"expected {dtype} {shape}"
            )
        if array == "masks" and values.max() > 1:
            raise StoreError(f"masks of shard {shard} hold {values.max()}, expected 0 and 1")

    def _publish(self, array: str, shard: int, values: Values) -> StoredObject:
        stored = np.ascontiguousarray(values, array_dtype(array))
        chunks = encode_chunks(array, stored)
        index = encode_index([total_bytes([chunk]) for chunk in chunks])
        # One piece where the chunks lie behind one another as they are stored.
        parts: list[Part] = [*chunks, index] if array == "masks" else [stored, index]
        name = f"{self.folder}/{shard_name(array, shard)}"
        # Checks, digests and writes let go of the interpreter, so they run side by side.
        with ThreadPoolExecutor(1) as pool:
            described = pool.submit(describe_parts, array, self.shard_rows(shard), chunks, index)
            for _ in range(_ATTEMPTS):
                if self.objects.put_new(name, parts, approve=described.result):
                    return described.result()
                try:
                    there = self._receipts.describe(array, shard)
                    if there == described.result() or not self._receipts.is_doubted(shard):
                        return there
                except NotInStore:
                    continue
                except CorruptStore:
                    if self.state() == "complete":
                        raise
                self.objects.delete(name)
        raise StoreError(f"{self.objects.where}/{name} can neither be written nor read")

    def _shard_estimate(self, shard: int) -> int:
        shrink = {"masks": _MASK_SHRINKS}
        return sum(
            self.geometry.raw_shard_bytes(array, shard) // shrink.get(array, 1)
            for array in self.geometry.arrays
        )
