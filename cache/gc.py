"""Find and remove what no cache needs: temporaries of dead writers, orphans, caches one names.

Only what has the names of a store's own objects can go, and nothing that lies behind a link: that
is somebody else's, and another store may need it.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache.find import CacheInfo, find_caches, read_record
from cache.layout import MANIFEST, RECORD, shard_name
from cache.objects import GRACE_SECONDS, ObjectInfo, Objects
from cache.zarr_group import zarr_metadata
from spg_core.errors import StoreError

_CACHE = r"tokens/[^/]+/[^/]+/[0-9a-f]{16}"
_ARTIFACT_KINDS = ("saes", "guides", "memories", "combinations", "scores", "sweeps")
_ARTIFACT = rf"(?:{'|'.join(_ARTIFACT_KINDS)})/[^/]+-[0-9a-f]{{8}}"
_TEMPORARY = re.compile(
    r"\.tmp-probe-[0-9a-f]{16}"
    rf"|{_CACHE}/(?:.+/)?\.tmp-[^/]+"
    rf"|(?:{_ARTIFACT}|figures/[^/]+)/(?:.+/)?\.tmp-[0-9a-f]{{16}}"
    r"|(?:latest|names/[^/]+)/\.tmp-[0-9a-f]{16}",
    re.DOTALL,
)
"""Where a store has temporaries. In a cache any writer's, elsewhere named as ours are."""


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

    Raises:
        StoreError: the folder is no store, or a cache to remove is reached through a link.
    """
    caches = find_caches(objects)
    if not caches:
        _refuse_other_folders(objects)
    for cache in remove:
        refuse_links(objects, cache.folder)
    found = [
        Garbage(info.name, info.size_bytes, "temporary of a writer that ended")
        for info in objects.temporaries("")
        if _TEMPORARY.fullmatch(info.name) and _is_old(info, grace_seconds)
    ]
    named = {cache.folder for cache in remove}
    for cache in caches:
        if cache.folder in named:
            found += _whole_cache(objects, cache)
        elif cache.state == "complete" and link_on_the_way(objects, cache.folder) is None:
            found += _orphans(objects, cache, grace_seconds)
    return found


def remove_garbage(objects: Objects, garbage: Sequence[Garbage]) -> int:
    """Delete what `find_garbage` listed, in its order; return the bytes freed."""
    for item in garbage:
        objects.delete(item.name)
    return sum(item.size_bytes for item in garbage)


def _refuse_other_folders(objects: Objects) -> None:
    """Refuse a folder that has something in it, and nothing of a store's."""
    folders = objects.folders("")
    is_store = any(
        re.fullmatch(_ARTIFACT, f"{kind}/{name}", re.DOTALL)
        for kind in _ARTIFACT_KINDS
        if kind in folders
        for name in objects.folders(kind)
    ) or any(re.match(_CACHE, info.name) for info in objects.temporaries("tokens"))
    if not is_store and (folders or next(objects.walk(""), None) is not None):
        raise StoreError(
            f"{objects.where} is no store: it holds neither caches nor SAEs, guides or scores; "
            "nothing there is touched"
        )


def refuse_links(objects: Objects, folder: str) -> None:
    """Refuse a folder that is reached through a link. Raises: StoreError."""
    link = link_on_the_way(objects, folder)
    if link is not None:
        raise StoreError(
            f"{objects.where}/{folder} is reached through a link, {link}; what it leads to is not "
            "removed from here: remove the link, or name the store it leads into"
        )


def link_on_the_way(objects: Objects, folder: str) -> Path | None:
    """Give the first link on the way from the store down to a folder of it."""
    parts = folder.split("/")
    for depth in range(1, len(parts) + 1):
        path = objects.local_path("/".join(parts[:depth]))
        if path is not None and path.is_symlink():
            return path
    return None


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
    except StoreError:
        return  # `verify` tells; nothing can be called an orphan without its record.
    known = {MANIFEST, RECORD, *zarr_metadata(record.geometry)}
    known |= {shard_name(a, r.shard) for r in record.receipts for a in r.objects}
    inside = list(objects.walk(cache.folder))
    # What consoles of object stores call a folder is an empty object, and nobody's leftover.
    parents = {str(parent) for info in inside for parent in PurePosixPath(info.name).parents}
    for info in inside:
        is_part = info.name.removeprefix(f"{cache.folder}/") in known or info.name in parents
        if not is_part and _is_old(info, grace_seconds):
            yield Garbage(info.name, info.size_bytes, "in a complete cache, but no part of it")


def _is_old(info: ObjectInfo, grace_seconds: float) -> bool:
    return time.time() - info.modified >= grace_seconds
