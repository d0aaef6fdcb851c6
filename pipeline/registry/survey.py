"""All artifacts of a store, finished or not; what cannot be read is named, and hides nothing."""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from cache.gc import link_on_the_way
from cache.objects import ObjectInfo, Objects
from pipeline.artifacts.documents import DOCUMENTS, Document
from pipeline.artifacts.names import list_names, read_name
from pipeline.artifacts.read import read_json
from pipeline.artifacts.resolve import Place, latest_id
from pipeline.artifacts.terms import is_part
from pipeline.kinds import BODY, JSON, Kind, folder
from pipeline.registry.parents import Parent, parents_of
from spg_core.errors import StoreError

State = Literal["finished", "unfinished", "damaged"]
_THREADS = 8
_LINK = "is a link, which is not followed"


@dataclass(frozen=True)
class Held:
    """One artifact of a store."""

    place: Place[Document]
    id: str
    objects: tuple[ObjectInfo, ...]
    """All of its folder."""
    document: Document | None
    """None where it is not finished, or cannot be read."""
    problem: str | None
    parents: tuple[Parent, ...]
    """What it stands on, as far as it tells."""
    names: tuple[str, ...]
    """What users call it; `latest` first."""

    @property
    def kind(self) -> Kind:
        """Its kind."""
        return self.place.kind

    @property
    def folder(self) -> str:
        """Its folder in the store."""
        return self.place.folder

    @property
    def size_bytes(self) -> int:
        """Of all its objects."""
        return sum(one.size_bytes for one in self.objects)

    @property
    def state(self) -> State:
        """Whether it is finished."""
        if self.problem is not None:
            return "damaged"
        return "unfinished" if self.document is None else "finished"


@dataclass(frozen=True)
class Survey:
    """What a store keeps besides caches."""

    store: Objects
    artifacts: dict[str, Held]
    """By folder, kind after kind."""
    problems: dict[str, str]
    """By the name of an object or folder that is no artifact's, or could not be looked into."""

    def children(self, parent: str) -> list[Held]:
        """Give the artifacts that name a folder as a parent."""
        return [
            one
            for one in self.artifacts.values()
            if parent in [found.folder for found in one.parents]
        ]

    def descendants(self, parent: str) -> list[Held]:
        """Give all that stands on a folder, directly or not."""
        found: dict[str, Held] = {}

        def visit(above: str) -> None:
            for one in self.children(above):
                if one.folder not in found and one.folder != parent:
                    found[one.folder] = one
                    visit(one.folder)

        visit(parent)
        return list(found.values())


def survey(store: Objects, kinds: Iterable[Kind] = tuple(JSON)) -> Survey:
    """Look at every artifact of a store. One that cannot be looked at does not hide the others."""
    artifacts: dict[str, Held] = {}
    problems: dict[str, str] = {}
    for kind in kinds:
        try:
            names = _names(store, kind, problems)
            found = _folders(store, kind, problems)
        except StoreError as error:
            problems[kind] = str(error)
            continue
        look = partial(_look, store, kind, names)
        with ThreadPoolExecutor(_THREADS) as pool:
            artifacts |= {one.folder: one for one in pool.map(look, found, found.values())}
    return Survey(store, artifacts, problems)


def _folders(store: Objects, kind: Kind, problems: dict[str, str]) -> dict[str, list[ObjectInfo]]:
    """Give what lies in the folder of each artifact of a kind, by its id."""
    if link_on_the_way(store, kind) is not None:
        problems[kind] = _LINK
        return {}
    inside: dict[str, list[ObjectInfo]] = defaultdict(list)
    for entry in store.walk(kind):
        if entry.name.count("/") > 1:
            inside[entry.name.split("/")[1]].append(entry)
    found = {}
    # without what file managers and synchronisers put into folders
    for name in sorted({*inside, *store.folders(kind)}):
        if name.startswith("."):
            continue
        if not is_part(name):
            problems[f"{kind}/{name}"] = "its name cannot be an artifact's"
        elif link_on_the_way(store, f"{kind}/{name}") is not None:
            problems[f"{kind}/{name}"] = _LINK
        elif inside[name]:
            found[name] = inside[name]
    return found


def _look(
    store: Objects,
    kind: Kind,
    names: dict[str, list[str]],
    identifier: str,
    inside: list[ObjectInfo],
) -> Held:
    place = Place(store, DOCUMENTS[kind], folder(kind, identifier))
    called, objects = tuple(names.get(identifier, ())), tuple(inside)
    try:
        if store.size(place.name(JSON[kind])) is None:
            return Held(place, identifier, objects, None, None, (), called)
        _refuse_links(place)
        document = read_json(place)[1]
        parents = tuple(parents_of(document))
    except StoreError as error:
        return Held(place, identifier, objects, None, str(error), (), called)
    return Held(place, identifier, objects, document, None, parents, called)


def _refuse_links(place: Place[Document]) -> None:
    for file in (JSON[place.kind], BODY[place.kind]):
        if link_on_the_way(place.store, place.name(file)) is not None:
            raise StoreError(f"{place.where(file)} {_LINK}")


def _names(store: Objects, kind: Kind, problems: dict[str, str]) -> dict[str, list[str]]:
    """Give what each id of a kind is called; a torn note, or one of what is gone, is a problem."""
    found: dict[str, list[str]] = defaultdict(list)
    notes = {"latest": f"latest/{kind}.json"}
    notes |= {name: f"names/{kind}/{name}.json" for name in list_names(store, kind)}
    for name, note in notes.items():
        try:
            read = latest_id(store, kind) if name == "latest" else read_name(store, kind, name)
        except StoreError as error:
            problems[note] = str(error)
            continue
        if read is not None:
            found[read].append(name)
            if store.size(f"{folder(kind, read)}/{JSON[kind]}") is None:
                problems[note] = f"means {folder(kind, read)}, which is not there any more"
    return found
