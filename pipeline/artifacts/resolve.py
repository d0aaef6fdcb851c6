"""Where an artifact is: its folder, and what a user may call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.objects import Objects
from cache.store import open_existing_store, open_store
from pipeline.artifacts.documents import Kind
from pipeline.artifacts.notes import LatestDocument, read_note, write_note
from pipeline.artifacts.terms import is_part
from pipeline.progress import say
from spg_core.errors import ArtifactError, NotInStore, StoreError

JSON: dict[Kind, str] = {
    "saes": "sae.json",
    "guides": "guides.json",
    "scores": "metrics.json",
    "sweeps": "sweep.json",
    "figures": "figure.json",
}
BODY: dict[Kind, str] = {
    "saes": "sae.safetensors",
    "guides": "guides.safetensors",
    "scores": "images.parquet",
    "sweeps": "sweep.parquet",
    "figures": "points.parquet",
}
"""The file of the numbers, which carries the document."""
SAY: dict[Kind, str] = {
    "saes": "SAE",
    "guides": "guides",
    "scores": "scores",
    "sweeps": "sweep",
    "figures": "figure",
}
_MAKE: dict[Kind, str] = {
    "saes": "fit-sae",
    "guides": "fit-guides",
    "scores": "score",
    "sweeps": "sweep",
    "figures": "reproduce",
}


@dataclass(frozen=True)
class Place:
    """The folder of an artifact in an open store."""

    store: Objects
    kind: Kind
    folder: str
    """Inside the store; empty where the store is opened at the artifact itself."""

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


def folder(kind: Kind, identifier: str) -> str:
    """Give the folder of an artifact inside its store."""
    return f"{kind}/{identifier}"


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


def resolve(store: Objects, kind: Kind, reference: str) -> Place:
    """Find what a user calls by its id, a unique prefix of it, a path or URL, or `latest`.

    Raises: NotInStore where there is none, ArtifactError where several fit.
    """
    location = reference
    if reference.endswith((JSON[kind], BODY[kind])):
        location = reference.removesuffix(JSON[kind]).removesuffix(BODY[kind]).rstrip("/") or "."
    if "://" in location or _is_file(Path(location) / JSON[kind]):
        return Place(open_store(location, read_only=store.read_only), kind, "")
    if reference == "latest":
        return Place(store, kind, folder(kind, _read_latest(store, kind)))
    if "/" not in reference and store.size(f"{folder(kind, reference)}/{JSON[kind]}") is not None:
        return Place(store, kind, folder(kind, reference))
    return Place(store, kind, folder(kind, _by_prefix(store, kind, reference)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # longer than a name can be, or behind a folder one may not look into
        return False


def _by_prefix(store: Objects, kind: Kind, reference: str) -> str:
    ids = _ids(store, kind)
    fitting = [identifier for identifier in ids if identifier.startswith(reference)]
    match fitting:
        case [only]:
            return only
        case []:
            raise NotInStore(
                f"no {SAY[kind]} {reference!r} in {store.where}/{kind}; there are: "
                f"{_listed(kind, ids)}"
            )
        case _:
            raise ArtifactError(
                f"{reference!r} fits several {SAY[kind]}: {', '.join(fitting)}; type more of the id"
            )


def make_latest(place: Place, identifier: str) -> None:
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


def _read_latest(store: Objects, kind: Kind) -> str:
    """Give the id that `latest` means. Raises: NotInStore, CorruptStore."""
    ids = _ids(store, kind)
    try:
        identifier = read_note(store, _latest(kind), LatestDocument).id
    except NotInStore:
        raise NotInStore(
            f"no {SAY[kind]} 'latest' in {store.where}/{kind}: `spg-pipe {_MAKE[kind]}` has made "
            f"none there that is not a control; there are: {_listed(kind, ids)}"
        ) from None
    if identifier not in ids:
        raise NotInStore(
            f"the latest {SAY[kind]} were {identifier}, which are not in {store.where} any more; "
            f"there are: {_listed(kind, ids)}"
        )
    return identifier


def _listed(kind: Kind, ids: Sequence[str]) -> str:
    return ", ".join(ids) or f"none yet; `spg-pipe {_MAKE[kind]}` makes them"
