"""Copy a complete cache from one store to another: resumable, verified, parallel.

The copy is a cache being written: shards, then their receipts, then the manifest, then
`cache.json`. So a cut copy is a partial cache like any other, and a second run goes on with it.
In a complete one, what is missing or cut is put back, and nothing else changes.
"""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cache.find import cache_state, read_record
from cache.layout import MANIFEST, RECORD, receipt_name, shard_name
from cache.objects import SMALL_OBJECT_BYTES, Objects
from cache.receipts import drop_receipts
from cache.record import CacheRecord, Receipt, receipt_to_bytes
from cache.verify import check_bytes
from cache.zarr_group import zarr_metadata
from spg_core.errors import CorruptStore, NotInStore, StoreError

_THREADS = 4


@dataclass(frozen=True)
class CopyReport:
    """What a copy did."""

    folder: str
    copied_bytes: int
    """Of shards; 0 when all of them were there."""
    copied_shards: int
    present_shards: int
    """Found whole in the destination."""


def copy_cache(
    source: Objects,
    destination: Objects,
    folder: str,
    progress: Callable[[int], None] | None = None,
    threads: int = _THREADS,
) -> CopyReport:
    """Copy a complete cache; what is there already is checked and left alone.

    Where the destination is complete, objects that are missing or of another size there are put
    back; spoilt bytes are found by `verify_cache`, not here.

    Args:
        source: the store that has it.
        destination: the store that will.
        folder: of the cache, `CacheInfo.folder`.
        progress: called with the bytes of each shard once it is there.
        threads: shards on their way at a time; each is in memory meanwhile.

    Raises:
        IncompleteCache: the source is not complete.
        CorruptStore: bytes of the source are not what was written; nothing of them is copied.
        StoreError: the destination is full or read-only, or holds other bytes under this key.
    """
    way = _Way(source, destination, folder, read_record(source, folder))
    if cache_state(destination, folder) == "complete":
        restored = _restore(way, progress, threads)
        drop_receipts(destination, folder)  # of a copy that was cut off at its very end
        return restored
    record = way.record
    destination.check_writable()
    there = sum(info.size_bytes for info in destination.walk(folder))
    _refuse_if_full(way, record.size_bytes - there)
    for name, data in zarr_metadata(record.geometry).items():
        _put(destination, f"{folder}/{name}", data)

    def copy(receipt: Receipt) -> int:
        copied = _copy_shard(way, receipt)
        if progress is not None:
            progress(sum(stored.size_bytes for stored in receipt.objects.values()))
        return copied

    with ThreadPoolExecutor(threads) as pool:
        copied = list(pool.map(copy, record.receipts))
    _put(destination, f"{folder}/{MANIFEST}", _manifest(way))
    _put(destination, f"{folder}/{RECORD}", source.get(f"{folder}/{RECORD}"))
    drop_receipts(destination, folder)
    n_copied = sum(size > 0 for size in copied)
    return CopyReport(folder, sum(copied), n_copied, len(record.receipts) - n_copied)


@dataclass(frozen=True)
class _Way:
    """From where to where what is copied."""

    source: Objects
    destination: Objects
    folder: str
    record: CacheRecord

    def fetch(self, array: str, shard: int) -> bytes:
        """Give a shard's object of the source, checked. Raises: CorruptStore, StoreError."""
        name = f"{self.folder}/{shard_name(array, shard)}"
        size_bytes = self.record.receipts[shard].objects[array].size_bytes
        try:
            data = self.source.get(name, max_bytes=size_bytes)
        except NotInStore as error:
            raise CorruptStore(f"{self.source.where}/{name} is missing") from error
        check_bytes(data, array, shard, self.record, f"{self.source.where}/{name}")
        return data


def _restore(way: _Way, progress: Callable[[int], None] | None, threads: int) -> CopyReport:
    """Put back what a complete cache has lost, each object in one step once its bytes are here.

    Nothing is ever removed, and nothing touched that may be sound.
    """
    objects, folder, record = way.destination, way.folder, way.record
    _refuse_other(read_record(objects, folder), record, objects, folder)
    sizes = {info.name: info.size_bytes for info in objects.walk(folder)}
    lost = [
        (array, receipt.shard, stored.size_bytes)
        for receipt in record.receipts
        for array, stored in receipt.objects.items()
        if sizes.get(f"{folder}/{shard_name(array, receipt.shard)}") != stored.size_bytes
    ]
    small = {**zarr_metadata(record.geometry), MANIFEST: None}
    spoilt = [name for name, data in small.items() if not _is_as_written(way, name, data)]
    n_shards = len({shard for _, shard, _ in lost})
    if lost or spoilt:
        objects.check_writable()
        _refuse_if_full(way, sum(size_bytes for _, _, size_bytes in lost))

    def restore(task: tuple[str, int, int]) -> None:
        array, shard, size_bytes = task
        objects.replace(f"{folder}/{shard_name(array, shard)}", [way.fetch(array, shard)])
        if progress is not None:
            progress(size_bytes)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(restore, lost))
    for name in spoilt:
        objects.replace(f"{folder}/{name}", [small[name] or _manifest(way)])
    n_bytes = sum(size_bytes for _, _, size_bytes in lost)
    return CopyReport(folder, n_bytes, n_shards, len(record.receipts) - n_shards)


def _is_as_written(way: _Way, name: str, data: bytes | None) -> bool:
    """Tell whether the destination has an object: this JSON, or the manifest of the record."""
    there = _get_or_none(way.destination, f"{way.folder}/{name}")
    if there is None or data is None:
        digest = None if there is None else hashlib.sha256(there).hexdigest()
        return digest == way.record.manifest_sha256
    try:
        return bool(json.loads(there) == json.loads(data))
    except (ValueError, RecursionError):
        return False


def _manifest(way: _Way) -> bytes:
    name = f"{way.folder}/{MANIFEST}"
    data = way.source.get(name, max_bytes=min(way.record.manifest_bytes, SMALL_OBJECT_BYTES))
    if hashlib.sha256(data).hexdigest() != way.record.manifest_sha256:
        raise CorruptStore(f"{way.source.where}/{name} does not match its digest")
    return data


def _copy_shard(way: _Way, receipt: Receipt) -> int:
    """Copy a shard's objects and its receipt; return the bytes written."""
    destination, record = way.destination, way.record
    written = 0
    proof = receipt_to_bytes(receipt, record.geometry)
    proof_name = f"{way.folder}/{receipt_name(receipt.shard)}"
    proved = _get_or_none(destination, proof_name) == proof
    for array in record.geometry.arrays:
        stored = receipt.objects[array]
        name = f"{way.folder}/{shard_name(array, receipt.shard)}"
        size_bytes = destination.size(name)
        if proved and size_bytes == stored.size_bytes:
            continue
        if size_bytes is not None:
            there = destination.get(name, max_bytes=max(stored.size_bytes, 1))
            check_bytes(there, array, receipt.shard, record, f"{destination.where}/{name}")
            continue
        data = way.fetch(array, receipt.shard)
        if destination.put_new(name, [data]):
            written += len(data)
    if not proved:
        destination.put_new(proof_name, [proof])
    return written


def _put(destination: Objects, name: str, data: bytes) -> None:
    if not destination.put_new(name, [data]) and destination.get(name) != data:
        raise StoreError(
            f"{destination.where}/{name} differs from the source; another run is writing this "
            "cache there, or an older one did: finish or remove that first"
        )


def _refuse_other(there: CacheRecord, wanted: CacheRecord, store: Objects, folder: str) -> None:
    if (there.receipts, there.manifest_sha256) != (wanted.receipts, wanted.manifest_sha256):
        raise StoreError(
            f"{store.where}/{folder} is complete there with other bytes or another manifest; it "
            "is left alone"
        )


def _refuse_if_full(way: _Way, needed: int) -> None:
    free = way.destination.free_bytes()
    if free is not None and max(0, needed) > free:
        raise StoreError(
            f"{way.destination.where} needs {needed} more bytes for {way.folder}, {free} are free"
        )


def _get_or_none(objects: Objects, name: str) -> bytes | None:
    try:
        return objects.get(name)
    except NotInStore:
        return None
