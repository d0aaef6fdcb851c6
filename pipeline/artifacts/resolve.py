"""Where an artifact is: its folder, and what a user may call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from cache.objects import Objects
from cache.store import open_existing_store, open_store
from pipeline.artifacts.documents import Document
from pipeline.artifacts.names import list_names, read_name
from pipeline.artifacts.notes import LatestDocument, read_note, write_note
from pipeline.artifacts.terms import is_part
from pipeline.kinds import BODY, JSON, MAKE, SAY, Kind, folder
from pipeline.terminal.progress import say
from spg_core.errors import ArtifactError, CorruptStore, NotInStore, StoreError
from spg_core.nearest import near

D_co = TypeVar("D_co", bound=Document, covariant=True)
D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Place(Generic[D_co]):
    """The folder of an artifact in an open store."""

    store: Objects
    document: type[D_co]
    """What the artifact says of itself."""
    folder: str
    """Inside the store; empty where the store is opened at the artifact itself."""

    @property
    def kind(self) -> Kind:
        """What kind of artifact it is."""
        return self.document.kind

    @property
    def path(self) -> str:
        """Its path or URL."""
        return f"{self.store.where}/{self.folder}".rstrip("/")

    def name(self, file: str) -> str:
        """Give the object's name of a file in it."""
        return f"{self.folder}/{file}".lstrip("/")

    def where(self, file: str) -> str:
        """Name a file in it for people."""
        return f"{self.path}/{file}"


def list_artifacts(store: Objects, kind: Kind) -> list[str]:
    """Give the ids of all finished artifacts of a kind, oldest first.

    Folders with a name that no artifact can have, such as control characters, are none of ours.
    """
    found = []
    for entry in store.walk(kind):
        parts = entry.name.split("/")
        if len(parts) == 3 and parts[2] == JSON[kind] and is_part(parts[1]):
            found.append((entry.modified, parts[1]))
    return [identifier for _, identifier in sorted(found)]


def resolve(store: Objects, document: type[D], reference: str) -> Place[D]:
    """Find what a user calls by id, name, unique start of an id, path or URL, or `latest`.

    Its kind may stand before it, `guides/latest`.

    Raises: NotInStore where there is none, ArtifactError where several fit.
    """
    placed = by_path(store, document, reference)
    if placed is not None:
        return placed
    kind = document.kind
    reference = reference.removeprefix(f"{kind}/")
    if reference == "latest":
        identifier = _read_latest(store, kind)
    elif is_there(store, kind, reference):
        identifier = reference
    else:
        named = _by_name(store, kind, reference)
        identifier = named or _by_prefix(store, kind, reference)
    return Place(store, document, folder(kind, identifier))


def by_path(store: Objects, document: type[D], reference: str) -> Place[D] | None:
    """Give the place that a URL, or a path to an artifact or its files, leads to; else None."""
    kind, location = document.kind, reference
    if reference.endswith((JSON[kind], BODY[kind])):
        location = reference.removesuffix(JSON[kind]).removesuffix(BODY[kind]).rstrip("/") or "."
    if "://" in location or _is_file(Path(location), JSON[kind]):
        return Place(open_store(location, read_only=store.read_only), document, "")
    return None


def is_there(store: Objects, kind: Kind, identifier: str) -> bool:
    """Tell whether a store has a finished artifact of an id; False for what can be no id."""
    name = f"{folder(kind, identifier)}/{JSON[kind]}"
    return is_part(identifier) and store.size(name) is not None


def _is_file(folder: Path, name: str) -> bool:
    try:
        return (folder.expanduser() / name).is_file()
    except (OSError, RuntimeError):  # longer than a name can be, closed to us, nobody's home
        return False


def _by_name(store: Objects, kind: Kind, reference: str) -> str | None:
    """Give what a name means, None for what is no name. Raises: NotInStore, CorruptStore."""
    identifier = read_name(store, kind, reference)
    if identifier is None or is_there(store, kind, identifier):
        return identifier
    raise NotInStore(
        f"the name {reference} means {SAY[kind]} {identifier}, which are not in {store.where} any "
        f"more; there are: {_listed(kind, _ids(store, kind))}"
    )


def _by_prefix(store: Objects, kind: Kind, reference: str) -> str:
    ids = _ids(store, kind)
    fitting = [identifier for identifier in ids if identifier.startswith(reference)]
    match fitting:
        case [only]:
            return only
        case []:
            raise NotInStore(
                f"no {SAY[kind]} {reference!r} in {store.where}/{kind}"
                f"{near(reference, [*ids, *list_names(store, kind)])}; there are: "
                f"{_listed(kind, ids)}"
            )
        case _:
            raise ArtifactError(
                f"{reference!r} fits several {SAY[kind]}: {', '.join(fitting)}; type more of the id"
            )


def make_latest(place: Place[Document], identifier: str) -> None:
    """Let `latest` mean an artifact: its command was given for its own sake.

    The points of a sweep, ablations and controls never are; so `latest` does not change a user's
    detector in silence. Where the store cannot be written, nothing is remembered.
    """
    if place.store.read_only:
        return
    try:
        write_note(place.store, _latest(place.kind), LatestDocument(of=place.kind, id=identifier))
    except StoreError as error:
        say(f"`latest` does not mean {identifier}: {error}")


def _ids(store: Objects, kind: Kind) -> list[str]:
    ids = list_artifacts(store, kind)
    if not ids:
        open_existing_store(store)  # of a mistyped store it is said that there is none
    return ids


def _latest(kind: Kind) -> str:
    return f"latest/{kind}.json"


def latest_id(store: Objects, kind: Kind) -> str | None:
    """Give the id that `latest` means, be it there or not. Raises: CorruptStore."""
    try:
        return read_note(store, _latest(kind), LatestDocument).id
    except NotInStore:
        return None


def _read_latest(store: Objects, kind: Kind) -> str:
    """Give the id that `latest` means. Raises: NotInStore, StoreError."""
    try:
        identifier = latest_id(store, kind)
    except StoreError as error:  # torn, say
        kind_of_error = CorruptStore if isinstance(error, CorruptStore) else StoreError
        raise kind_of_error(
            f"{error}; give an id instead: {_listed(kind, _ids(store, kind))}; the next "
            f"`spg-pipe {MAKE[kind]}` writes it anew"
        ) from None
    if identifier is None:
        raise NotInStore(
            f"no {SAY[kind]} 'latest' in {store.where}/{kind}: `spg-pipe {MAKE[kind]}` has made "
            f"none there that is not a control; there are: {_listed(kind, _ids(store, kind))}"
        )
    if not is_there(store, kind, identifier):
        raise NotInStore(
            f"the latest {SAY[kind]} were {identifier}, which are not in {store.where} any more; "
            f"there are: {_listed(kind, _ids(store, kind))}"
        )
    return identifier


def _listed(kind: Kind, ids: Sequence[str]) -> str:
    return ", ".join(ids) or f"none yet; `spg-pipe {MAKE[kind]}` makes them"
