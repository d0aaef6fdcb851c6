"""The shards of an open cache: mapped when first asked for, each image's bytes checked once."""

import resource
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from cache.layout import IMAGES_PER_SHARD, shard_name
from cache.mirror import Mirror
from cache.objects import Objects
from cache.record import CacheRecord
from cache.shard import MappedShard, crc32c
from spg_core.errors import CorruptStore, StoreError

_SHARE_OF_DESCRIPTORS = 4
"""Each map holds a file descriptor: maps may take the process's limit divided by this."""


class OpenShards:
    """Files of a local store, or of the mirror of a remote one. Safe between threads."""

    def __init__(
        self, objects: Objects, folder: str, record: CacheRecord, mirror: Mirror | None
    ) -> None:
        self._objects = objects
        self._folder = folder
        self._record = record
        self._mirror = mirror
        self._geometry = record.geometry
        n_images = record.geometry.n_images
        self._seen = {array: np.zeros(n_images, np.bool_) for array in record.geometry.arrays}
        self._mapped: OrderedDict[tuple[str, int], MappedShard] = OrderedDict()
        self._lock = Lock()
        # a batch of a shuffled epoch reads of all shards: mapping them anew each time is slow
        self._mapped_at_a_time = descriptors_for(record.geometry.n_shards) // _SHARE_OF_DESCRIPTORS

    def verified(self, array: str, shard: int, local_rows: NDArray[np.int64]) -> MappedShard:
        """Return a shard of an array once the bytes of `local_rows`, its images, are verified.

        Raises:
            CorruptStore: the file is missing, cut, or holds other bytes than were written.
            StoreError: it cannot be read.
        """
        mapped = self._get(array, shard)
        start = shard * IMAGES_PER_SHARD
        seen = self._seen[array][start : start + IMAGES_PER_SHARD]
        fresh = local_rows[~seen[local_rows]]
        expected = self._record.receipts[shard].objects[array].crc32c
        for row in np.unique(fresh).tolist():
            if crc32c(mapped.chunk(row)) != expected[row]:
                raise self.corrupt(
                    array, shard, f"the bytes of image row {start + row} do not match their CRC-32C"
                )
            seen[row] = True
        return mapped

    def close(self) -> None:
        """Unmap all shards; the next read maps again what it needs."""
        with self._lock:
            self._mapped.clear()

    def corrupt(self, array: str, shard: int, problem: str) -> CorruptStore:
        """Make the error that names a shard, its images and the copy that was read."""
        rows = self._geometry.shard_rows(shard)
        name = shard_name(array, shard)
        copy = (
            "" if self._mirror is None else f"; its local copy is {self._mirror.local_file(name)}"
        )
        where = f"{self._objects.where}/{self._folder}/{name}"
        return CorruptStore(f"{where} (images {rows.start} to {rows.stop - 1}): {problem}{copy}")

    def _get(self, array: str, shard: int) -> MappedShard:
        with self._lock:
            mapped = self._mapped.get((array, shard))
            if mapped is not None:
                self._mapped.move_to_end((array, shard))
                return mapped
        mapped = self._open(array, shard)
        with self._lock:
            self._mapped[array, shard] = mapped
            while len(self._mapped) > self._mapped_at_a_time:
                self._mapped.popitem(last=False)
        return mapped

    def _open(self, array: str, shard: int) -> MappedShard:
        name = shard_name(array, shard)
        if self._mirror is not None:
            path: Path | None = self._mirror.fetch(name)
        else:
            path = self._objects.local_path(f"{self._folder}/{name}")
        assert path is not None
        expected = self._record.receipts[shard].objects[array].size_bytes
        n_rows = len(self._geometry.shard_rows(shard))
        try:
            return MappedShard(path, expected, n_rows, array, self._geometry.item_shape(array))
        except StoreError as error:
            raise self.corrupt(array, shard, str(error)) from error
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise self.corrupt(array, shard, "the file is missing") from error
            shown = f"{self._objects.where}/{self._folder}/{name}"
            raise StoreError(f"cannot read {shown}: {error.strerror or error}") from error


def descriptors_for(n_shards: int) -> int:
    """Give how many file descriptors this process may hold, more where so many shards need them.

    The limit that a shell sets, often 1,024, is raised as far as the system lets anybody.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n_shards * _SHARE_OF_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    with suppress(OSError, ValueError):
        more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        return more
    return soft
