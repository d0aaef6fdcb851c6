"""What is asked for is made once: found where it is there, else made; then it is called."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from cache.objects import Objects
from pipeline.artifacts.io import find_artifact
from pipeline.artifacts.names import give_name, require_free
from pipeline.artifacts.read import Artifact
from pipeline.artifacts.resolve import D, make_latest
from pipeline.kinds import CHECKPOINT, SAY, folder
from pipeline.terminal.progress import say
from spg_core.errors import SpgError, StoreError

Made = Mapping[str, Artifact[D] | SpgError]
"""What was made or found, or why not, by id."""


def make_once(
    store: Objects,
    document: type[D],
    identifier: str,
    make: Callable[[], Made[D]],
    *,
    direct: bool,
    name: str | None = None,
) -> Artifact[D]:
    """Give the artifact of an id, found or made, called by a name if it is to have one.

    Args:
        store: where.
        document: what it says of itself.
        identifier: its id.
        make: makes it, and perhaps others.
        direct: `latest` means it from then on, as it is asked for its own sake.
        name: means it from then on, too.

    Raises: ArtifactError for a name that means another; StoreError, and why it was not made.
    """
    kind = document.kind
    if name is not None:
        require_free(store, kind, name, identifier)
    found = find_artifact(store, document, identifier)
    if found is not None:
        verb = "are" if SAY[kind] == kind else "is"
        say(f"{SAY[kind]} {identifier} {verb} there already")
        _drop_leftover(store, f"{folder(kind, identifier)}/{CHECKPOINT}")
    return give(found or make()[identifier], direct=direct, name=name)


def give(made: Artifact[D] | SpgError, *, direct: bool, name: str | None = None) -> Artifact[D]:
    """Give what was made, and let `latest` (if it is `direct`) and a name mean it.

    Raises: what it failed with; ArtifactError for a name that means another.
    """
    if isinstance(made, SpgError):
        raise made
    if direct:
        make_latest(made.place, made.id)
    if name is not None:
        give_name(made.place.store, made.place.kind, made.id, name)
    return made


def look_up(
    store: Objects, document: type[D], identifiers: Iterable[str]
) -> tuple[dict[str, Artifact[D] | SpgError], list[str]]:
    """Give the artifacts that are there, or what is wrong with them, and the ids of the others."""
    known: dict[str, Artifact[D] | SpgError] = {}
    missing = []
    for identifier in identifiers:
        try:
            found = find_artifact(store, document, identifier)
        except SpgError as error:  # the others are made all the same
            known[identifier] = error
            continue
        if found is None:
            missing.append(identifier)
        else:
            known[identifier] = found
    return known, missing


def _drop_leftover(store: Objects, checkpoint: str) -> None:
    """Delete the checkpoint of an artifact that was whole when its fit was cut off."""
    with suppress(StoreError):  # it only takes room
        if not store.read_only and store.size(checkpoint) is not None:
            store.delete(checkpoint)
