"""Verify, copy and choose caches, with a progress bar: what the cache commands do with many."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TypeVar

from cache.find import survey
from cache.gc import find_garbage, remove_garbage
from cache.layout import RECORD
from cache.objects import Objects
from cache.share import copy_cache
from cache.store import open_existing_store, open_store
from cache.verify import Problem, VerifyReport, verify_cache
from pipeline.caches.answers import (
    Copied,
    Copies,
    Leftover,
    Removed,
    Spoilt,
    Tidied,
    Trouble,
    Verified,
)
from pipeline.caches.report import NamedCache, name_cache, name_caches, spoilt, troubles
from pipeline.caches.stated import users
from pipeline.chosen import in_words
from pipeline.configs import CacheWords
from pipeline.terminal.progress import Advance, bar, say
from spg_core.errors import IncompleteCache, NotInStore, StoreError

T = TypeVar("T")


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


def verify_all(caches: list[NamedCache], strange: Mapping[str, str]) -> list[Verified]:
    """Verify caches one after the other; what cannot be read is a problem like others.

    Args:
        caches: to verify.
        strange: folders that are no caches, and why.

    Raises: IncompleteCache for one that is only partly written.
    """
    no_caches = [Verified(name, "", 0, 0, [Spoilt(name, text)]) for name, text in strange.items()]
    return no_caches + _each("Verifying", caches, _verify)


def _verify(cache: NamedCache, progress: Callable[[int], None]) -> Verified:
    folder = cache.info.folder
    try:
        report = verify_cache(cache.store, folder, progress)
    except IncompleteCache:
        raise
    except StoreError as error:
        report = VerifyReport(folder, 0, 0, (Problem(f"{folder}/{RECORD}", (), str(error)),))
    problems = spoilt(cache, report.problems)
    return Verified(folder, cache.info.key, report.checked_bytes, report.checked_objects, problems)


def _each(
    description: str,
    caches: list[NamedCache],
    do: Callable[[NamedCache, Callable[[int], None]], T],
) -> list[T]:
    """Give what `do(cache, progress)` makes of each cache, behind a bar of MB, or kB for a few."""
    made, done, total = [], 0, sum(cache.info.size_bytes for cache in caches)
    unit, unit_bytes = ("MB", 10**6) if total >= 10**7 else ("kB", 10**3)
    with bar(f"{description} {unit}", total // unit_bytes) as advance:
        counted = _Counted(advance, unit_bytes)
        for cache in caches:
            made.append(do(cache, counted.add))
            done += cache.info.size_bytes
            counted.add(done - counted.n_bytes)  # small files and what was skipped, too
    return made


def caches_to_copy(
    source: str, only: Sequence[str], words: CacheWords
) -> tuple[list[NamedCache], dict[str, str]]:
    """Give the caches that `cache copy` was asked for: named ones, one path, or all complete ones.

    Where all are meant, also what is wrong with folders that are no caches.

    Raises: NotInStore, StoreError, IncompleteCache.
    """
    if "/tokens/" in source.rstrip("/"):
        if only:
            raise StoreError(f"{source} names one cache already; leave --only out")
        place, _, inside = source.rstrip("/").rpartition("/tokens/")
        return [name_cache(open_store(place, read_only=True), inside, words)], {}
    store = open_existing_store(source, read_only=True)
    if only or in_words(words):
        return name_caches(store, only, words), {}
    caches, strange = complete_caches(store)
    if not caches:
        raise NotInStore(f"no complete cache in {store.where}")
    return caches, strange


def copy_all(
    caches: list[NamedCache], strange: Mapping[str, str], target: Objects, threads: int
) -> Copies:
    """Copy caches one after the other; one that cannot be copied does not hold up the others.

    Args:
        caches: to copy.
        strange: folders that are no caches, and why.
        target: the store that will have them.
        threads: shards on their way at a time.

    Raises: StoreError where only one is asked for; run again, what is there is kept.
    """

    def copy(cache: NamedCache, progress: Callable[[int], None]) -> Copied | Trouble:
        folder = cache.info.folder
        try:
            report = copy_cache(cache.store, target, folder, progress, threads)
        except StoreError as error:
            if len(caches) == 1:
                raise
            return Trouble(folder, str(error))
        path, present = f"{target.where}/{folder}", report.present_shards
        return Copied(folder, path, report.copied_bytes, report.copied_shards, present)

    made = _each("Copying", caches, copy)
    damaged = [one for one in made if isinstance(one, Trouble)]
    copied = [one for one in made if isinstance(one, Copied)]
    return Copies(target.where, copied, troubles(strange) + damaged)


def tidy(
    store: Objects, references: Sequence[str], words: CacheWords, grace_hours: float, delete: bool
) -> Tidied:
    """Give what no cache needs and what is of the caches named for removal; delete it if asked to.

    Raises:
        NotInStore, StoreError: none or several fit a name, a path leads into another store or
            behind a link, or the folder is no store.
    """
    named = name_caches(store, references, words)
    for cache in named:
        if cache.store is not store:
            raise StoreError(f"{cache.where} is in another store; name that with --store")
    removed = [cache.info for cache in named]
    garbage = find_garbage(store, removed, grace_hours * 3600)
    if delete:
        remove_garbage(store, garbage)
    used = users(store)
    return Tidied(
        store.where,
        delete,
        sum(item.size_bytes for item in garbage),
        [Leftover(item.name, item.size_bytes, item.reason) for item in garbage],
        [Removed(one.folder, one.size_bytes, used.get(one.key, [])) for one in removed],
    )


class _Counted:
    """Bytes, reported from several threads, as whole units on a bar."""

    def __init__(self, advance: Advance, unit_bytes: int) -> None:
        self.n_bytes = 0
        self._advance, self._unit, self._lock = advance, unit_bytes, Lock()

    def add(self, n_bytes: int) -> None:
        with self._lock:
            before = self.n_bytes // self._unit
            self.n_bytes += n_bytes
            self._advance(self.n_bytes // self._unit - before)
