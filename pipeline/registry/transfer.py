"""Push and pull: an artifact and all it stands on, from one store to another.

An artifact is written there as its first writer wrote it: body, companions, JSON, create-only. So
a transfer that is cut off goes on when it is run again, and of two at a time each object has one.
Nothing is written before every artifact was read here by its digest, and held against what is
there.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cache.find import CacheName, inspect_cache, read_record
from cache.gc import link_on_the_way, refuse_links
from cache.hub_objects import publish
from cache.objects import Objects
from pipeline.artifacts.documents import DOCUMENTS, Document
from pipeline.artifacts.names import give_name, list_names, read_name
from pipeline.artifacts.read import is_sound, read_body, read_both
from pipeline.artifacts.resolve import Place
from pipeline.caches.answers import Copied, Trouble
from pipeline.caches.report import NamedCache
from pipeline.caches.work import copy_all
from pipeline.kinds import BODY, JSON
from pipeline.prediction.familiar_file import FOLDER as FAMILIAR
from pipeline.registry.answers import Moved, Transfer
from pipeline.registry.find import find_any
from pipeline.registry.parents import Parent, parents_of
from pipeline.terminal.progress import say
from spg_core.errors import ArtifactError, CorruptStore, NotInStore, SpgError, StoreError

_FOLDERS = ("tokens", "names", "latest", *JSON)
"""Those at the top of a store."""
_COMPANIONS = (".json", ".jsonl", ".png", ".parquet", ".html")
"""Endings of what stages and notes put beside an artifact; other files stay where they are."""


def transfer(
    source: Objects, target: Objects, reference: str, *, with_tokens: bool, threads: int
) -> Transfer:
    """Copy an artifact with its parents, its notes and the names that mean it; check what is there.

    Args:
        source: the store that has it.
        target: the store that will.
        reference: what a user calls it.
        with_tokens: copy the token caches as well that it was made from.
        threads: shards of a cache on their way at a time.

    Raises:
        NotInStore, ArtifactError: it, or a parent of it, is not in the source.
        CorruptStore: bytes of the source are not what was written; nothing of them is copied.
        StoreError: the target has another artifact of an id, or is one folder of the source, and
            nothing is copied; or it is full.
    """
    _refuse_inside(source, target)
    top = find_any(source, reference)
    source = top.store
    chain, caches = _chain(top)
    for place in chain:
        _refuse_other(place, replace(place, store=target))
    named = [_cache(source, folder) for folder in caches] if with_tokens else []
    target.check_writable()
    copied = _copy_caches(named, target, threads)
    moved = [_copy(place, replace(place, store=target)) for place in chain]
    names, problems = _copy_names(top, target)
    publish(target, f"spg-pipe push {top.folder}")
    for place in chain:
        read_both(replace(place, store=target))
    return Transfer(target.where, moved, copied, names, problems)


def _chain(top: Place[Document]) -> tuple[list[Place[Document]], list[str]]:
    """Give an artifact and all it stands on, parents first, and the folders of their caches.

    Each is read and checked. Raises: NotInStore for a parent that is not there; CorruptStore.
    """
    found: dict[str, Place[Document]] = {}
    caches: dict[str, None] = {}

    def visit(place: Place[Document], above: tuple[str, ...]) -> None:
        for file in (JSON[place.kind], BODY[place.kind]):
            refuse_links(place.store, place.name(file))
        for parent in parents_of(read_both(place).document):
            if parent.kind is None:
                caches[parent.folder] = None
            elif parent.folder not in (*found, *above):
                visit(_parent(place, parent), (*above, parent.folder))
        found[place.folder] = place

    visit(top, (top.folder,))
    return list(found.values()), list(caches)


def _parent(place: Place[Document], parent: Parent) -> Place[Document]:
    assert parent.kind is not None
    if not parent.is_in(place.store):
        raise NotInStore(
            f"{place.folder} stands on {parent.folder}, which is not in {place.store.where}"
        )
    return Place(place.store, DOCUMENTS[parent.kind], parent.folder)


def _refuse_inside(source: Objects, target: Objects) -> None:
    """Refuse a store in a folder that belongs to the other. Raises: StoreError."""
    for outer, inner in ((source, target), (target, source)):
        inside = _full(inner.where).removeprefix(f"{_full(outer.where)}/")
        if inside != _full(inner.where) and inside.partition("/")[0] in _FOLDERS:
            raise StoreError(
                f"{inner.where} lies inside the store {outer.where}, among its own folders; "
                "give a store of its own"
            )


def _full(where: str) -> str:
    return where.rstrip("/") if "://" in where else os.path.realpath(where)


def _refuse_other(place: Place[Document], there: Place[Document]) -> None:
    """Refuse a target that has other numbers under an id. Raises: StoreError."""
    if there.store.size(there.name(BODY[there.kind])) is None or not is_sound(there):
        return
    if read_body(there)[1] != read_both(place).document.digest:
        raise StoreError(
            f"{there.path} has other numbers than {place.path}: the same request, fitted twice, "
            "gave other bits; nothing is copied. Keep one of the two: `spg-pipe rm` removes the "
            "other, or fit with another seed"
        )


def _copy(place: Place[Document], there: Place[Document]) -> Moved:
    """Copy one artifact in the order in which artifacts are written."""
    digest, target = read_both(place).document.digest, there.store
    body, name = _read(place, BODY[place.kind]), there.name(BODY[place.kind])
    if hashlib.sha256(body).hexdigest() != digest:
        raise CorruptStore(f"{place.where(BODY[place.kind])} changed while it was read")
    written, kept = 0, []
    if target.put_new(name, [body]):
        written += len(body)
    elif not is_sound(there):
        target.replace(name, [body])
        written += len(body)
    for file in _companions(place):
        data = _read(place, file)
        if target.put_new(there.name(file), [data]):
            written += len(data)
        elif _read(there, file) != data:
            kept.append(file)
    return Moved(there.folder, there.path, written + _finish(place, there), kept)


def _read(place: Place[Document], file: str) -> bytes:
    name = place.name(file)
    return place.store.get(name, max_bytes=max(1, place.store.size(name) or 0))


def _finish(place: Place[Document], there: Place[Document]) -> int:
    """Write the JSON, in place of one that does not belong to the numbers there; give its bytes."""
    data, name = _read(place, JSON[place.kind]), there.name(JSON[there.kind])
    if there.store.put_new(name, [data]):
        return len(data)
    try:
        read_both(there)
    except CorruptStore as error:
        say(f"{error}; it is written again")
        there.store.replace(name, [data])
        return len(data)
    return 0


def _companions(place: Place[Document]) -> Iterator[str]:
    """Name the files beside an artifact that go with it: notes, curves, tables, pictures."""
    for entry in place.store.walk(place.folder):
        file = entry.name.removeprefix(f"{place.folder}/")
        first, _, rest = file.partition("/")
        if file in (JSON[place.kind], BODY[place.kind]) or "/" in rest or first.endswith(".zarr"):
            continue
        if not file.endswith(_COMPANIONS) and first != FAMILIAR:
            continue
        if link_on_the_way(place.store, entry.name) is not None:
            say(f"{place.where(file)} is a link and stays here")
        else:
            yield file


def _cache(store: Objects, folder: str) -> NamedCache:
    """Find a cache by its folder, complete. Raises: NotInStore, IncompleteCache, CorruptStore."""
    _, dataset, backbone, key = folder.split("/")
    info = inspect_cache(store, CacheName(dataset=dataset, backbone=backbone, key=key))
    if info is None:
        raise NotInStore(
            f"the tokens {folder} are not in {store.where}; leave --with-tokens out, or pull them "
            "first"
        )
    refuse_links(store, folder)
    read_record(store, folder)
    return NamedCache(store, info)


def _copy_caches(named: list[NamedCache], target: Objects, threads: int) -> Sequence[Copied]:
    if not named:
        return []
    made = copy_all(named, {}, target, threads)
    for trouble in made.problems:
        raise StoreError(f"{trouble.object}: {trouble.problem}")
    return made.copied


def _copy_names(top: Place[Document], target: Objects) -> tuple[list[str], list[Trouble]]:
    """Let the names that mean an artifact here mean it there; those taken there stay."""
    given, problems = [], []
    identifier = top.folder.partition("/")[2]
    for name in list_names(top.store, top.kind):
        try:
            if read_name(top.store, top.kind, name) == identifier:
                give_name(target, top.kind, identifier, name)
                given.append(name)
        except (ArtifactError, CorruptStore) as error:
            problems.append(Trouble(f"names/{top.kind}/{name}.json", _first(error)))
    return given, problems


def _first(error: SpgError) -> str:
    return f"{error}".partition(";")[0]
