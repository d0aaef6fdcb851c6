"""Which caches a store holds, and in which state. Looking never creates anything."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from cache.key import is_key, tell_apart
from cache.layout import RECORD, cache_folder, is_path_part
from cache.objects import Objects
from cache.record import CacheRecord, parse_record
from spg_core.errors import CorruptStore, IncompleteCache, NotInStore, StoreError

State = Literal["absent", "partial", "complete"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CacheName:
    """Which cache: the parts of its path."""

    dataset: str
    backbone: str
    key: str

    @property
    def folder(self) -> str:
        """Return the cache's folder in its store."""
        return cache_folder(self.dataset, self.backbone, self.key)

    @property
    def path(self) -> str:
        """Return how people write it, `dataset/backbone/key`."""
        return f"{self.dataset}/{self.backbone}/{self.key}"


@dataclass(frozen=True, kw_only=True)
class CacheInfo(CacheName):
    """One cache of a listing."""

    state: State
    size_bytes: int
    """Of everything in the cache's folder."""
    modified: float
    """Seconds since the epoch, of its youngest object."""


@dataclass(frozen=True)
class Survey:
    """All that is below a store's `tokens`."""

    caches: tuple[CacheInfo, ...]
    """Complete and partial ones, in the order of their paths."""
    problems: dict[str, str]
    """What is wrong with the folders, by name, that could not be looked into."""


def cache_state(objects: Objects, folder: str) -> State:
    """Tell how far the cache in a folder is."""
    if objects.size(f"{folder}/{RECORD}") is not None:
        return "complete"
    return "absent" if next(objects.walk(folder), None) is None else "partial"


def survey(objects: Objects, dataset: str | None = None, backbone: str | None = None) -> Survey:
    """Look at every cache of a store; one that cannot be looked at does not hide the others.

    Raises: StoreError where the store itself cannot be listed.
    """
    names, problems = _names(objects, dataset, backbone)
    found = []
    for name in names:
        try:
            found.append(inspect_cache(objects, name))
        except StoreError as error:
            problems[name.folder] = str(error)
    return Survey(tuple(info for info in found if info is not None), problems)


def find_caches(
    objects: Objects, dataset: str | None = None, backbone: str | None = None
) -> list[CacheInfo]:
    """List the caches of a store, complete and partial; warn of what had to be left out."""
    seen = survey(objects, dataset, backbone)
    for name, problem in seen.problems.items():
        _log.warning("left out: %s/%s: %s", objects.where, name, problem)
    return list(seen.caches)


def inspect_cache(objects: Objects, name: CacheName) -> CacheInfo | None:
    """Look at one cache; None where there is none."""
    # A console's "folder" is an empty object of the folder's own name.
    inside = [info for info in objects.walk(name.folder) if info.name != name.folder]
    record = f"{name.folder}/{RECORD}"
    # A record that is no regular file is not walked over, but it is there, and damaged.
    complete = any(info.name == record for info in inside) or objects.size(record) is not None
    if not inside and not complete:
        return None
    return CacheInfo(
        dataset=name.dataset,
        backbone=name.backbone,
        key=name.key,
        state="complete" if complete else "partial",
        size_bytes=sum(info.size_bytes for info in inside),
        modified=max((info.modified for info in inside), default=0.0),
    )


def resolve_caches(objects: Objects, reference: str) -> list[CacheName]:
    """Return the caches that a name means: a key, `dataset/backbone/key`, or a start of either.

    A whole name is not looked up: whether such a cache is there is for the caller to find out.
    """
    *above, last = reference.split("/")
    if len(above) > 2 or "" in above:
        return []
    if len(above) == 2 and is_key(last):
        return [CacheName(dataset=above[0], backbone=above[1], key=last)]
    names, _ = _names(objects, *above)
    parts = {name: name.path.split("/")[len(above)] for name in names}
    # Whole parts win over starts: `visa` is not also `visa-small`.
    whole = [name for name, part in parts.items() if part == last]
    return whole or [
        name
        for name, part in parts.items()
        if part.startswith(last) or (not above and name.key.startswith(last))
    ]


def choose_cache(
    objects: Objects, dataset: str, backbone: str, key: str | None = None
) -> CacheRecord:
    """Return the record of the one complete cache meant by dataset, backbone and a key's start.

    Raises:
        NotInStore: there is none; says what there is.
        IncompleteCache: it is only partly written.
        StoreError: several are meant.
        CorruptStore: its record was edited or torn.
    """
    cache_folder(dataset, backbone, key or "any")
    asked = f"{dataset}/{backbone}" + (f"/{key}" if key else "")
    meant = resolve_caches(objects, f"{dataset}/{backbone}/{key or ''}")
    if len(meant) > 1:
        complete = [one for one in meant if objects.size(f"{one.folder}/{RECORD}") is not None]
        if len(complete) > 1:
            raise StoreError(
                f"{asked} in {objects.where} means several caches, choose a key: "
                f"{told_apart([read_record(objects, one.folder) for one in complete])}; --layer, "
                "--image-size and --final-norm choose, too"
            )
        meant = complete or meant
    for one in meant[:1]:
        with suppress(IncompleteCache):
            return read_record(objects, one.folder)
    if any(cache_state(objects, one.folder) == "partial" for one in meant):
        raise IncompleteCache(
            f"{asked} in {objects.where} is only partly written; run the extraction again to "
            "finish it"
        )
    raise NotInStore(f"no cache {asked} in {objects.where}; it holds {held_caches(objects)}")


def told_apart(records: Sequence[CacheRecord]) -> str:
    """Return the keys of some caches, each with what tells it from the others."""
    words = tell_apart([one.covers for one in records])
    return ", ".join(
        f"{one.key} ({said})" if said else one.key for one, said in zip(records, words, strict=True)
    )


def held_caches(objects: Objects) -> str:
    """Return the names of all caches of a store, for messages."""
    names, _ = _names(objects)
    return ", ".join(name.path for name in names) or "no cache"


def read_record(objects: Objects, folder: str) -> CacheRecord:
    """Return the checked `cache.json` of a complete cache.

    Raises:
        IncompleteCache: there is none.
        CorruptStore: it was edited or torn, or belongs to another folder.
    """
    where = f"{objects.where}/{folder}/{RECORD}"
    try:
        data = objects.get(f"{folder}/{RECORD}")
    except NotInStore as error:
        raise IncompleteCache(f"{where} is missing: the cache is absent or partial") from error
    try:
        return parse_record(data, where, key=folder.rpartition("/")[2])
    except CorruptStore:
        raise
    except StoreError as error:  # NaN, say, of which there is no digest
        raise CorruptStore(f"{where}: {error}") from error


def _names(
    objects: Objects, dataset: str | None = None, backbone: str | None = None
) -> tuple[list[CacheName], dict[str, str]]:
    """List folders only: the caches there may be, and the folders that cannot be listed."""
    problems: dict[str, str] = {}
    start = "/".join(["tokens", *filter(None, (dataset, backbone))])

    def below(folder: str) -> list[str]:
        try:
            # Without what file managers and synchronisers put into folders.
            names = [name for name in objects.folders(folder) if not name.startswith(".")]
        except StoreError as error:
            if folder == start:
                raise
            problems[folder] = str(error)
            return []
        for name in names:
            if not is_path_part(name):
                problems[f"{folder}/{name}"] = "its name cannot be part of a cache's path"
        return [name for name in names if is_path_part(name)]

    return [
        CacheName(dataset=data_name, backbone=backbone_name, key=key)
        for data_name in ([dataset] if dataset else below("tokens"))
        for backbone_name in ([backbone] if backbone else below(f"tokens/{data_name}"))
        for key in below(f"tokens/{data_name}/{backbone_name}")
        if is_key(key)
    ], problems
