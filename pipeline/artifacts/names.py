"""Names that users give to artifacts: `names/<kind>/<name>.json`, a note each.

A name means one artifact until it is told to mean another. One whose artifact is gone means
nothing, rather than the next thing that begins like it.
"""

from cache.objects import Objects
from pipeline.artifacts.notes import NameDocument, read_note, write_new_note, write_note
from pipeline.configs.common import is_artifact_name
from pipeline.kinds import Kind
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
    except NotInStore:
        return None
    if note.of != kind:
        raise CorruptStore(
            f"{store.where}/{_note(kind, name)} is of {note.of}; name it anew with --move"
        )
    return note.id


def require_free(store: Objects, kind: Kind, name: str, identifier: str) -> None:
    """Refuse a name that means another artifact. Raises: ArtifactError, CorruptStore."""
    meant = read_name(store, kind, name)
    if meant not in (None, identifier) and _is_there(store, f"{kind}/{meant}"):
        raise ArtifactError(
            f"the name {name} means {kind}/{meant} in {store.where}; `spg-pipe name "
            f"{kind}/{identifier} {name} --move` lets it mean the other"
        )


def give_name(
    store: Objects, kind: Kind, identifier: str, name: str, *, move: bool = False
) -> None:
    """Let a name mean an artifact.

    Raises: ArtifactError where it means another and is not to be moved; CorruptStore, StoreError.
    """
    note = NameDocument(of=kind, id=identifier)
    if write_new_note(store, _note(kind, name), note):
        return
    if not move:
        if read_name(store, kind, name) == identifier:
            return
        require_free(store, kind, name, identifier)
    write_note(store, _note(kind, name), note)


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
