"""Verify, copy and choose caches, with a progress bar: what the cache commands do with many."""

from threading import Lock
from typing import Any

from cache.find import CacheInfo, find_caches, read_record
from cache.layout import RECORD
from cache.objects import Objects
from cache.share import copy_cache
from cache.store import open_existing_store, open_store
from cache.verify import Problem, verify_cache
from pipeline.caches.report import NamedCache, name_cache, problem_rows
from pipeline.progress import Advance, bar, say
from spg_core.errors import CorruptStore, NotInStore, StoreError


def complete_caches(store: Objects) -> list[NamedCache]:
    """Give the complete caches of a store, and say which are passed over because they are partial.

    Raises: NotInStore where there is none.
    """
    found = find_caches(store)
    for info in found:
        if info.state != "complete":
            say(f"{info.folder} is only partly written and is passed over")
    complete = [NamedCache(store, info) for info in found if info.state == "complete"]
    if not complete:
        raise NotInStore(f"no complete cache in {store.where}")
    return complete


def verify_all(caches: list[NamedCache]) -> list[dict[str, Any]]:
    """Verify caches one after the other; a record that cannot be read is a problem like others.

    Raises: IncompleteCache for one that is only partly written.
    """
    reports = []
    with bar("Verifying MB", sum(cache.info.size_bytes for cache in caches) // 10**6) as advance:
        megabytes = _Megabytes(advance)
        for cache in caches:
            before = megabytes.n_bytes
            try:
                report = verify_cache(cache.store, cache.info.folder, megabytes.add)
                problems = problem_rows(cache, report.problems)
                n_bytes, n_objects = report.checked_bytes, report.checked_objects
            except CorruptStore as error:
                whole = Problem(f"{cache.info.folder}/{RECORD}", (), str(error))
                problems, n_bytes, n_objects = problem_rows(cache, (whole,)), 0, 0
            megabytes.add(before + cache.info.size_bytes - megabytes.n_bytes)  # small files, too
            reports.append(
                {
                    "cache": cache.info.folder,
                    "key": cache.info.key,
                    "bytes": n_bytes,
                    "objects": n_objects,
                    "problems": problems,
                }
            )
    return reports


def caches_to_copy(source: str, only: list[str]) -> list[NamedCache]:
    """Give the caches that `cache copy` was asked for: named ones, one path, or all complete ones.

    Raises: NotInStore, StoreError, IncompleteCache.
    """
    if "/tokens/" in source.rstrip("/"):
        if only:
            raise StoreError(f"{source} names one cache already; leave --only out")
        place, _, inside = source.rstrip("/").rpartition("/tokens/")
        return [name_cache(open_store(place, read_only=True), inside)]
    store = open_existing_store(source, read_only=True)
    return [name_cache(store, one) for one in only] if only else complete_caches(store)


def copy_all(caches: list[NamedCache], target: Objects, threads: int) -> list[dict[str, Any]]:
    """Copy caches one after the other.

    Raises: IncompleteCache, CorruptStore, StoreError: at the first that cannot be copied; run
        again, what is there is kept.
    """
    sizes = [read_record(cache.store, cache.info.folder).size_bytes for cache in caches]
    copied = []
    with bar("Copying MB", sum(sizes) // 10**6) as advance:
        megabytes = _Megabytes(advance)
        for cache, size_bytes in zip(caches, sizes, strict=True):
            before = megabytes.n_bytes
            report = copy_cache(cache.store, target, cache.info.folder, megabytes.add, threads)
            megabytes.add(before + size_bytes - megabytes.n_bytes)  # what was skipped, too
            copied.append(
                {
                    "cache": report.folder,
                    "path": f"{target.where}/{report.folder}",
                    "copied_bytes": report.copied_bytes,
                    "copied_shards": report.copied_shards,
                    "present_shards": report.present_shards,
                }
            )
    return copied


def caches_to_remove(store: Objects, references: list[str]) -> list[CacheInfo]:
    """Give the caches of this store that were named for removal.

    Raises: NotInStore, StoreError: none or several fit, or a path into another store.
    """
    named = [name_cache(store, reference) for reference in references]
    for cache in named:
        if cache.store is not store:
            raise StoreError(f"{cache.where} is in another store; name that with --store")
    return [cache.info for cache in named]


class _Megabytes:
    """Bytes, reported from several threads, as whole megabytes on a bar."""

    def __init__(self, advance: Advance) -> None:
        self.n_bytes = 0
        self._advance, self._lock = advance, Lock()

    def add(self, n_bytes: int) -> None:
        with self._lock:
            before = self.n_bytes // 10**6
            self.n_bytes += n_bytes
            self._advance(self.n_bytes // 10**6 - before)
