"""Verify, copy and choose caches, with a progress bar: what the cache commands do with many."""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from cache.find import survey
from cache.gc import find_garbage, remove_garbage
from cache.layout import RECORD
from cache.objects import Objects
from cache.share import copy_cache
from cache.store import open_existing_store, open_store
from cache.verify import Problem, verify_cache
from pipeline.caches.report import NamedCache, name_cache, problem_rows, users
from pipeline.progress import Advance, bar, say
from spg_core.errors import IncompleteCache, NotInStore, StoreError


def complete_caches(store: Objects) -> tuple[list[NamedCache], dict[str, str]]:
    """Give the complete caches of a store, and what is wrong with folders that are no caches.

    Says which caches are passed over because they are partial.

    Raises: NotInStore where there are only partial ones.
    """
    seen = survey(store)
    for info in seen.caches:
        if info.state != "complete":
            say(f"{info.folder} is only partly written and is passed over")
    complete = [NamedCache(store, info) for info in seen.caches if info.state == "complete"]
    if seen.caches and not complete:
        raise NotInStore(f"no complete cache in {store.where}")
    return complete, seen.problems


def verify_all(caches: list[NamedCache], strange: Mapping[str, str]) -> list[dict[str, Any]]:
    """Verify caches one after the other; what cannot be read is a problem like others.

    Args:
        caches: to verify.
        strange: folders that are no caches, and why.

    Raises: IncompleteCache for one that is only partly written.
    """
    reports = [
        {
            "cache": name,
            "key": "",
            "bytes": 0,
            "objects": 0,
            "problems": [{"object": name, "problem": text, "rows": [], "images": []}],
        }
        for name, text in strange.items()
    ]
    with bar("Verifying MB", sum(cache.info.size_bytes for cache in caches) // 10**6) as advance:
        megabytes = _Megabytes(advance)
        for cache in caches:
            before = megabytes.n_bytes
            reports.append(_verify(cache, megabytes))
            megabytes.add(before + cache.info.size_bytes - megabytes.n_bytes)  # small files, too
    return reports


def _verify(cache: NamedCache, megabytes: "_Megabytes") -> dict[str, Any]:
    try:
        report = verify_cache(cache.store, cache.info.folder, megabytes.add)
        problems = problem_rows(cache, report.problems)
        n_bytes, n_objects = report.checked_bytes, report.checked_objects
    except IncompleteCache:
        raise
    except StoreError as error:
        whole = Problem(f"{cache.info.folder}/{RECORD}", (), str(error))
        problems, n_bytes, n_objects = problem_rows(cache, (whole,)), 0, 0
    return {
        "cache": cache.info.folder,
        "key": cache.info.key,
        "bytes": n_bytes,
        "objects": n_objects,
        "problems": problems,
    }


def caches_to_copy(source: str, only: Sequence[str]) -> tuple[list[NamedCache], dict[str, str]]:
    """Give the caches that `cache copy` was asked for: named ones, one path, or all complete ones.

    Where all are meant, also what is wrong with folders that are no caches.

    Raises: NotInStore, StoreError, IncompleteCache.
    """
    if "/tokens/" in source.rstrip("/"):
        if only:
            raise StoreError(f"{source} names one cache already; leave --only out")
        place, _, inside = source.rstrip("/").rpartition("/tokens/")
        return [name_cache(open_store(place, read_only=True), inside)], {}
    store = open_existing_store(source, read_only=True)
    if only:
        return [name_cache(store, one) for one in only], {}
    caches, strange = complete_caches(store)
    if not caches:
        raise NotInStore(f"no complete cache in {store.where}")
    return caches, strange


def copy_all(
    caches: list[NamedCache], target: Objects, threads: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Copy caches one after the other; one that cannot be copied does not hold up the others.

    Returns:
        What was copied, and by folder why the others were not.

    Raises: StoreError where only one is asked for; run again, what is there is kept.
    """
    copied, damaged = [], {}
    with bar("Copying MB", sum(cache.info.size_bytes for cache in caches) // 10**6) as advance:
        megabytes = _Megabytes(advance)
        for cache in caches:
            before = megabytes.n_bytes
            try:
                copied.append(_copy(cache, target, threads, megabytes))
            except StoreError as error:
                if len(caches) == 1:
                    raise
                damaged[cache.info.folder] = str(error)
            # what was skipped, too
            megabytes.add(before + cache.info.size_bytes - megabytes.n_bytes)
    return copied, damaged


def _copy(
    cache: NamedCache, target: Objects, threads: int, megabytes: "_Megabytes"
) -> dict[str, Any]:
    report = copy_cache(cache.store, target, cache.info.folder, megabytes.add, threads)
    return {
        "cache": report.folder,
        "path": f"{target.where}/{report.folder}",
        "copied_bytes": report.copied_bytes,
        "copied_shards": report.copied_shards,
        "present_shards": report.present_shards,
    }


def tidy(
    store: Objects, references: Sequence[str], grace_hours: float, delete: bool
) -> dict[str, Any]:
    """Give what no cache needs and what is of the caches named for removal; delete it if asked to.

    Raises:
        NotInStore, StoreError: none or several fit a name, a path leads into another store or
            behind a link, or the folder is no store.
    """
    named = [name_cache(store, reference) for reference in references]
    for cache in named:
        if cache.store is not store:
            raise StoreError(f"{cache.where} is in another store; name that with --store")
    removed = [cache.info for cache in named]
    garbage = find_garbage(store, removed, grace_hours * 3600)
    if delete:
        remove_garbage(store, garbage)
    used = users(store)
    return {
        "deleted": delete,
        "bytes": sum(item.size_bytes for item in garbage),
        "objects": [
            {"object": item.name, "bytes": item.size_bytes, "reason": item.reason}
            for item in garbage
        ],
        "removed": [
            {"cache": one.folder, "bytes": one.size_bytes, "used_by": used.get(one.key, [])}
            for one in removed
        ],
    }


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
