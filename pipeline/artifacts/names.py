"""Names that users give to artifacts: `names/<kind>/<name>.json`, a note each.

A name means one artifact, of whatever kind, until it is told to mean another. One whose artifact is
gone means nothing, rather than the next thing that begins like it.
"""

from cache.objects import Objects
from pipeline.artifacts.notes import NameDocument, read_note, write_new_note, write_note
from pipeline.configs.common import is_artifact_name
from pipeline.kinds import JSON, Kind, folder
from spg_core.errors import ArtifactError, CorruptStore, NotInStore

FOLDER = "names"


def read_name(store: Objects, kind: Kind, name: str) -> str | None:
    """Give the id that a name means, be it there or not; None for what is no name.

    Raises: CorruptStore for a torn note.
    """
    if not is_artifact_name(name):
        return None
    try:
        note = read_note(store, _note(kind, name), NameDocument)
        if note.of != kind:
            raise CorruptStore(f"{store.where}/{_note(kind, name)} is of {note.of}")
    except NotInStore:
        return None
    except CorruptStore as error:
        raise CorruptStore(
            f"{error}; `spg-pipe name ID {name} --move` writes it anew, `spg-pipe name "
            f"{kind}/{name} --drop` takes it away"
        ) from None
    return note.id


def require_free(store: Objects, kind: Kind, name: str, identifier: str) -> None:
    """Refuse a name that means another artifact, of whatever kind.

    Raises: ArtifactError, CorruptStore.
    """
    for of in _holders(store, name):
        meant = read_name(store, of, name)
        if meant is None or (of, meant) == (kind, identifier):
            continue
        if _is_there(store, folder(of, meant)):
            move = f"`spg-pipe name {kind}/{identifier} {name} --move` lets it mean the other"
            if not _is_there(store, folder(kind, identifier)):
                move = f"give another --name, or none; then {move}"
            raise ArtifactError(f"the name {name} means {of}/{meant} in {store.where}; {move}")


def give_name(
    store: Objects, kind: Kind, identifier: str, name: str, *, move: bool = False
) -> None:
    """Let a name mean an artifact, and nothing of another kind.

    Raises: ArtifactError where it means another and is not to be moved; CorruptStore, StoreError.
    """
    if not move:
        require_free(store, kind, name, identifier)
    note = NameDocument(of=kind, id=identifier)
    if not write_new_note(store, _note(kind, name), note):
        if not move:  # it may have come between
            require_free(store, kind, name, identifier)
        if move or read_name(store, kind, name) != identifier:
            write_note(store, _note(kind, name), note)
    for other in _holders(store, name):
        # of two that give it at a time, neither takes it from the other
        if other != kind and (move or not _means_something(store, other, name)):
            drop_name(store, other, name)


def _holders(store: Objects, name: str) -> list[Kind]:
    """Give the kinds that have a note of a name, torn or not."""
    notes = {entry.name for entry in store.walk(FOLDER)}
    return [kind for kind in JSON if _note(kind, name) in notes]


def _means_something(store: Objects, kind: Kind, name: str) -> bool:
    meant = read_name(store, kind, name)
    return meant is not None and _is_there(store, folder(kind, meant))


def drop_name(store: Objects, kind: Kind, name: str) -> None:
    """Take a name away; what it means stays. Raises: StoreError."""
    store.delete(_note(kind, name))


def list_names(store: Objects, kind: Kind) -> list[str]:
    """Give all names of a kind, also those that mean nothing. Raises: StoreError."""
    depth = len((FOLDER, kind))
    parts = [
        entry.name.removesuffix(".json").split("/") for entry in store.walk(f"{FOLDER}/{kind}")
    ]
    return [one[-1] for one in parts if len(one) == depth + 1 and is_artifact_name(one[-1])]


def _note(kind: Kind, name: str) -> str:
    return f"{FOLDER}/{kind}/{name}.json"


def _is_there(store: Objects, folder: str) -> bool:
    return next(store.walk(folder), None) is not None
