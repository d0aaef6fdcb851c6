"""SAEs, guides, memories, scores, sweeps and figures in the store: how they are written and read.

An artifact is a folder `<kind>/<id>`. The file of its numbers carries its document and is published
create-only, so of two who make the same artifact one wins; then whoever is there writes the JSON
that this file carries. A crash in between, or another's numbers in one's own place, leave nothing
that the next run cannot finish. The id ends in a digest of what determines the content (parents,
configuration, seed, version), so the same request finds the same artifact.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, overload

import pyarrow as pa

from cache.key import canonical_json
from cache.objects import Objects
from pipeline import __version__
from pipeline.artifacts.bodies import encode_table, encode_tensors
from pipeline.artifacts.content import check_tensors
from pipeline.artifacts.documents import (
    DOCUMENTS,
    CombinationDocument,
    Document,
    GuidesDocument,
    MemoryDocument,
    SaeDocument,
    ScoresDocument,
)
from pipeline.artifacts.parse import FORMAT, Json, OtherFormat, to_json
from pipeline.artifacts.read import (
    NOT_CARRIED,
    Artifact,
    describe,
    differences,
    is_sound,
    parse,
    read_body,
    read_both,
    read_json,
)
from pipeline.artifacts.resolve import D, Place, resolve
from pipeline.kinds import BODY, JSON, SAY, Kind, folder
from pipeline.terminal.progress import say
from spg_core.errors import CorruptStore, NotInStore, StoreError

if TYPE_CHECKING:
    from torch import Tensor

Extras = Callable[[D], Mapping[str, bytes]]
"""Gives files to be written beside the JSON, from the document that is published."""

_ATTEMPTS = 100
_WHERE = ("device", "memory_gb")


def settings(config: object) -> Json:
    """Give what of a config is part of an id: all but where the work was done."""
    return {name: value for name, value in to_json(config).items() if name not in _WHERE}


def artifact_id(stem: str, identity: Mapping[str, object]) -> str:
    """Name an artifact: a readable stem and 8 hex digits of what determines its content."""
    text = canonical_json({**identity, "spg": __version__, "format": FORMAT})
    return f"{stem}-{hashlib.sha256(text).hexdigest()[:8]}"


def is_complete(store: Objects, kind: Kind, identifier: str) -> bool:
    """Tell whether the artifact is there, as far as its names say; `find_artifact` looks inside."""
    place = folder(kind, identifier)
    return all(store.size(f"{place}/{name}") is not None for name in (JSON[kind], BODY[kind]))


def save_artifact(
    store: Objects,
    document: D,
    numbers: Mapping[str, "Tensor"] | pa.Table,
    extras: Extras[D] = lambda _: {},
    *,
    renew: bool = False,
) -> Artifact[D]:
    """Write an artifact, its JSON last, and give what is in the store then.

    One that is already there is left as it is, unless it is damaged or to be made anew (`renew`).

    Args:
        store: where.
        document: what the artifact says of itself.
        numbers: its tensors, or a table.
        extras: further files of its folder, by name.
        renew: put it in place of what is there.

    Raises: StoreError.
    """
    place = Place(store, type(document), folder(document.kind, document.id))
    if not isinstance(numbers, pa.Table):
        check_tensors(document, numbers, place.where(BODY[place.kind]))
    body = _encode(document, numbers)
    if renew or (not store.put_new(place.name(BODY[place.kind]), [body]) and not is_sound(place)):
        store.replace(place.name(BODY[place.kind]), [body])
    return _settle(place, extras)


def _encode(document: Document, numbers: Mapping[str, "Tensor"] | pa.Table) -> bytes:
    fields = {name: value for name, value in to_json(document).items() if name not in NOT_CARRIED}
    fields["versions"] = fields.pop("versions")  # last, as people read the rest first
    text = json.dumps({"format": FORMAT, "kind": document.kind, **fields}, allow_nan=False)
    if isinstance(numbers, pa.Table):
        return encode_table(numbers, text)
    return encode_tensors(numbers, text)


def _settle(place: Place[D], extras: Extras[D]) -> Artifact[D]:
    """Make JSON and extras those of the numbers that are there, whoever wrote them."""
    store, name = place.store, place.name(JSON[place.kind])
    for _ in range(_ATTEMPTS):
        carried, digest, tensors = read_body(place)
        ours = describe(carried, digest)
        document = parse(ours, place, place.where(JSON[place.kind]))
        for file, content in extras(document).items():
            store.replace(place.name(file), [content])
        text = json.dumps(ours, indent=1).encode()
        if store.put_new(name, [text]):
            return Artifact(place, document, tensors)
        try:
            raw, stored = read_json(place)
            if raw["digest"] == digest and not differences(raw, carried):
                return Artifact(place, stored, tensors)
        except (CorruptStore, NotInStore):
            pass
        # torn, or of numbers that are there no more: so look again at those that are
        store.replace(name, [text])
    raise StoreError(f"{place.path} is changed by others all the time; let them finish")


def find_artifact(
    store: Objects, document: type[D], identifier: str, extras: Extras[D] = lambda _: {}
) -> Artifact[D] | None:
    """Give an artifact that is there and whole, None where it is to be made.

    What a crash left is finished, and damage is named before the artifact is made again.

    Raises: StoreError; CorruptStore for one of another version of the format.
    """
    kind = document.kind
    place = Place(store, document, folder(kind, identifier))
    if all(store.size(place.name(name)) is None for name in (JSON[kind], BODY[kind])):
        return None
    try:
        return read_both(place)
    except OtherFormat:
        raise
    except (CorruptStore, NotInStore) as error:
        trouble = error
    if not store.read_only and store.size(place.name(BODY[kind])) and is_sound(place):
        say(f"{trouble}; {JSON[kind]} is written again from {BODY[kind]}")
        return _settle(place, extras)
    say(f"{trouble}; {SAY[kind]} {identifier} are made again")
    return None


@overload
def load_artifact(
    store: Objects, kind: Literal["saes"], reference: str
) -> Artifact[SaeDocument]: ...
@overload
def load_artifact(
    store: Objects, kind: Literal["guides"], reference: str
) -> Artifact[GuidesDocument]: ...
@overload
def load_artifact(
    store: Objects, kind: Literal["memories"], reference: str
) -> Artifact[MemoryDocument]: ...
@overload
def load_artifact(
    store: Objects, kind: Literal["combinations"], reference: str
) -> Artifact[CombinationDocument]: ...
@overload
def load_artifact(
    store: Objects, kind: Literal["scores"], reference: str
) -> Artifact[ScoresDocument]: ...
def load_artifact(store: Objects, kind: Kind, reference: str) -> Artifact[Document]:
    """Read an artifact by id, name, start of an id, path, URL or `latest`; say which it is.

    Raises: NotInStore where there is none, ArtifactError where several fit, CorruptStore where the
    files are torn, out of range or do not belong together.
    """
    artifact = read_both(resolve(store, DOCUMENTS[kind], reference))
    if reference != artifact.id:
        say(f"{SAY[kind]} {reference}: {artifact.id}")
    return artifact


def load_document(store: Objects, document: type[D], identifier: str) -> D:
    """Read the JSON of an artifact alone. Raises: NotInStore, CorruptStore."""
    return read_json(Place(store, document, folder(document.kind, identifier)))[1]
