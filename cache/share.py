"""Copy a complete cache from one store to another: resumable, verified, parallel.

The copy is a cache being written: shards, then their receipts, then the manifest, then
`cache.json`. So a cut copy is a partial cache like any other, and a second run goes on with it.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cache.find import cache_state, read_record
from cache.layout import MANIFEST, RECORD, receipt_name, shard_name
from cache.objects import Objects
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

    Where the destination is complete, objects that are missing or of another size there are copied
    again; spoilt bytes are found by `verify_cache`, not here.

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
    record = read_record(source, folder)
    receipts = record.receipts
    if cache_state(destination, folder) == "complete":
        _refuse_other(read_record(destination, folder), record, destination, folder)
        receipts = _drop_damaged(destination, folder, record)
        if not receipts and destination.size(f"{folder}/{MANIFEST}") is not None:
            return CopyReport(folder, 0, 0, len(record.receipts))
    destination.check_writable()
    _refuse_if_full(destination, folder, record)
    for name, data in zarr_metadata(record.geometry).items():
        _put(destination, f"{folder}/{name}", data)

    def copy(receipt: Receipt) -> int:
        copied = _copy_shard(source, destination, folder, record, receipt)
        if progress is not None:
            progress(sum(stored.size_bytes for stored in receipt.objects.values()))
        return copied

    with ThreadPoolExecutor(threads) as pool:
        copied = list(pool.map(copy, receipts))
    manifest = source.get(f"{folder}/{MANIFEST}")
    if hashlib.sha256(manifest).hexdigest() != record.manifest_sha256:
        raise CorruptStore(f"{source.where}/{folder}/{MANIFEST} does not match its digest")
    _put(destination, f"{folder}/{MANIFEST}", manifest)
    _put(destination, f"{folder}/{RECORD}", source.get(f"{folder}/{RECORD}"))
    for info in list(destination.walk(f"{folder}/receipts")):
        destination.delete(info.name)
    n_copied = sum(size > 0 for size in copied)
    return CopyReport(folder, sum(copied), n_copied, len(record.receipts) - n_copied)


def _drop_damaged(objects: Objects, folder: str, record: CacheRecord) -> tuple[Receipt, ...]:
    """Delete what has another size than was written; give the shards that are not all there."""
    sizes = {info.name: info.size_bytes for info in objects.walk(folder)}
    damaged = []
    for receipt in record.receipts:
        wanted = {
            f"{folder}/{shard_name(array, receipt.shard)}": stored.size_bytes
            for array, stored in receipt.objects.items()
        }
        bad = [name for name, size_bytes in wanted.items() if sizes.get(name) != size_bytes]
        for name in bad:
            objects.delete(name)
        if bad:
            damaged.append(receipt)
    return tuple(damaged)


def _copy_shard(
    source: Objects, destination: Objects, folder: str, record: CacheRecord, receipt: Receipt
) -> int:
    """Copy a shard's objects and its receipt; return the bytes written."""
    written = 0
    proof = receipt_to_bytes(receipt, record.geometry)
    proof_name = f"{folder}/{receipt_name(receipt.shard)}"
    proved = _get_or_none(destination, proof_name) == proof
    for array in record.geometry.arrays:
        stored = receipt.objects[array]
        name = f"{folder}/{shard_name(array, receipt.shard)}"
        if proved and destination.size(name) == stored.size_bytes:
            continue
        if destination.size(name) is not None:
            there = destination.get(name, max_bytes=max(stored.size_bytes, 1))
            check_bytes(there, array, receipt.shard, record, f"{destination.where}/{name}")
            continue
        try:
            data = source.get(name, max_bytes=stored.size_bytes)
        except NotInStore as error:
            raise CorruptStore(f"{source.where}/{name} is missing") from error
        check_bytes(data, array, receipt.shard, record, f"{source.where}/{name}")
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


def _refuse_if_full(destination: Objects, folder: str, record: CacheRecord) -> None:
    free = destination.free_bytes()
    there = sum(info.size_bytes for info in destination.walk(folder))
    needed = max(0, record.size_bytes - there)
    if free is not None and needed > free:
        raise StoreError(
            f"{destination.where} needs {needed} more bytes for {folder}, {free} are free"
        )


def _get_or_none(objects: Objects, name: str) -> bytes | None:
    try:
        return objects.get(name)
    except NotInStore:
        return None
