"""Which caches a store holds, and in which state. Looking never creates anything."""

from dataclasses import dataclass
from typing import Literal

from cache.key import KEY_DIGITS
from cache.layout import RECORD, cache_folder
from cache.objects import Objects
from cache.record import CacheRecord, parse_record
from spg_core.errors import IncompleteCache, NotInStore, StoreError

State = Literal["absent", "partial", "complete"]


@dataclass(frozen=True, kw_only=True)
class CacheInfo:
    """One cache of a listing."""

    dataset: str
    backbone: str
    key: str
    state: State
    size_bytes: int
    """Of everything in the cache's folder."""
    modified: float
    """Seconds since the epoch, of its youngest object."""

    @property
    def folder(self) -> str:
        """Return the cache's folder in its store."""
        return cache_folder(self.dataset, self.backbone, self.key)


def cache_state(objects: Objects, folder: str) -> State:
    """Tell how far the cache in a folder is."""
    if objects.size(f"{folder}/{RECORD}") is not None:
        return "complete"
    return "absent" if next(objects.walk(folder), None) is None else "partial"


def find_caches(
    objects: Objects, dataset: str | None = None, backbone: str | None = None
) -> list[CacheInfo]:
    """List the caches of a store, complete and partial, in the order of their paths."""
    found = []
    for data_name in [dataset] if dataset else _plain(objects.folders("tokens")):
        names = [backbone] if backbone else _plain(objects.folders(f"tokens/{data_name}"))
        for backbone_name in names:
            for key in objects.folders(f"tokens/{data_name}/{backbone_name}"):
                if not _is_key(key):
                    continue
                info = _inspect(objects, data_name, backbone_name, key)
                if info is not None:
                    found.append(info)
    return found


def choose_cache(
    objects: Objects, dataset: str, backbone: str, key: str | None = None
) -> CacheInfo:
    """Return the one complete cache meant by a dataset, a backbone and, if needed, a key's start.

    Raises:
        NotInStore: there is none; says what there is.
        IncompleteCache: it is only partly written.
        StoreError: several are meant.
    """
    cache_folder(dataset, backbone, key or "any")
    asked = f"{dataset}/{backbone}" + (f"/{key}" if key else "")
    known = find_caches(objects, dataset, backbone)
    meant = [info for info in known if info.key.startswith(key or "")]
    complete = [info for info in meant if info.state == "complete"]
    if len(complete) == 1:
        return complete[0]
    if len(complete) > 1:
        keys = ", ".join(info.key for info in complete)
        raise StoreError(f"{asked} in {objects.where} means several caches, choose a key: {keys}")
    if meant:
        raise IncompleteCache(
            f"{asked} in {objects.where} is only partly written; run the extraction again to "
            "finish it"
        )
    there = [f"{info.dataset}/{info.backbone}/{info.key}" for info in find_caches(objects)]
    raise NotInStore(
        f"no cache {asked} in {objects.where}; it holds {', '.join(there) or 'no cache'}"
    )


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
    return parse_record(data, where, key=folder.rpartition("/")[2])


def _plain(names: list[str]) -> list[str]:
    """Leave out what file managers and synchronisers put into folders."""
    return [name for name in names if not name.startswith(".")]


def _is_key(name: str) -> bool:
    return len(name) == KEY_DIGITS and set(name) <= set("0123456789abcdef")


def _inspect(objects: Objects, dataset: str, backbone: str, key: str) -> CacheInfo | None:
    folder = cache_folder(dataset, backbone, key)
    inside = list(objects.walk(folder))
    if not inside:
        return None
    complete = any(info.name == f"{folder}/{RECORD}" for info in inside)
    return CacheInfo(
        dataset=dataset,
        backbone=backbone,
        key=key,
        state="complete" if complete else "partial",
        size_bytes=sum(info.size_bytes for info in inside),
        modified=max(info.modified for info in inside),
    )
