"""Find and remove what no cache needs: temporaries of dead writers, orphans, caches one names."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache.find import CacheInfo, find_caches, read_record
from cache.layout import MANIFEST, RECORD, shard_name
from cache.objects import GRACE_SECONDS, ObjectInfo, Objects
from cache.zarr_group import zarr_metadata
from spg_core.errors import CorruptStore


@dataclass(frozen=True)
class Garbage:
    """One object that can go."""

    name: str
    size_bytes: int
    reason: str


def find_garbage(
    objects: Objects, remove: Sequence[CacheInfo] = (), grace_seconds: float = GRACE_SECONDS
) -> list[Garbage]:
    """List what can go, without touching it; complete and partial caches only if named.

    Args:
        objects: the store.
        remove: caches to remove whole, complete or not.
        grace_seconds: younger temporaries and orphans may belong to a living writer and stay.
    """
    found = [
        Garbage(info.name, info.size_bytes, "temporary of a writer that ended")
        for info in objects.temporaries("")
        if _is_old(info, grace_seconds)
    ]
    named = {info.folder for info in remove}
    for cache in find_caches(objects):
        if cache.folder in named:
            found += _whole_cache(objects, cache)
        elif cache.state == "complete":
            found += _orphans(objects, cache, grace_seconds)
    return found


def remove_garbage(objects: Objects, garbage: Sequence[Garbage]) -> int:
    """Delete what `find_garbage` listed, in its order; return the bytes freed."""
    for item in garbage:
        objects.delete(item.name)
    return sum(item.size_bytes for item in garbage)


def _whole_cache(objects: Objects, cache: CacheInfo) -> Iterator[Garbage]:
    # cache.json first: a removal that is cut off leaves a partial cache, not a false one.
    inside = sorted(
        objects.walk(cache.folder), key=lambda info: info.name.rpartition("/")[2] != RECORD
    )
    for info in inside:
        yield Garbage(info.name, info.size_bytes, f"{cache.state} cache, named for removal")


def _orphans(objects: Objects, cache: CacheInfo, grace_seconds: float) -> Iterator[Garbage]:
    try:
        record = read_record(objects, cache.folder)
    except CorruptStore:
        return  # `verify` tells; nothing can be called an orphan without its record.
    known = {MANIFEST, RECORD, *zarr_metadata(record.geometry)}
    known |= {shard_name(a, r.shard) for r in record.receipts for a in r.objects}
    for info in objects.walk(cache.folder):
        if info.name.removeprefix(f"{cache.folder}/") not in known and _is_old(info, grace_seconds):
            yield Garbage(info.name, info.size_bytes, "in a complete cache, but no part of it")


def _is_old(info: ObjectInfo, grace_seconds: float) -> bool:
    return time.time() - info.modified >= grace_seconds
