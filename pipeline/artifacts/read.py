"""Read an artifact: its JSON, the file of its numbers, and whether the two belong together."""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from cache.key import explain_difference
from cache.objects import SMALL_OBJECT_BYTES
from pipeline.artifacts.bodies import Tensors, carried_document, decode_tensors
from pipeline.artifacts.content import check_tensors, tensor_bytes
from pipeline.artifacts.documents import Document
from pipeline.artifacts.parse import LARGEST_BYTES, Json, parse_document, read_document
from pipeline.artifacts.resolve import D, D_co, Place
from pipeline.artifacts.terms import now
from pipeline.artifacts.told import rows_of, told
from pipeline.kinds import BODY, JSON, SAY, folder
from pipeline.tables.frames import to_frame
from spg_core.errors import CorruptStore, NotInStore

if TYPE_CHECKING:
    from pandas import DataFrame

NOT_CARRIED = ("created", "digest")
"""The same request gives the same file of numbers, whenever it is made."""


@dataclass(frozen=True)
class Artifact(Generic[D_co]):
    """A finished artifact: where it is, what its JSON says and the tensors it holds."""

    place: Place[D_co]
    document: D_co
    tensors: Tensors = field(repr=False)

    @property
    def id(self) -> str:
        """Its name."""
        return self.document.id

    @property
    def path(self) -> str:
        """Its folder or URL."""
        return self.place.path

    def __repr__(self) -> str:
        return told(self.document, self.path)

    def to_pandas(self) -> "DataFrame":
        """Give the table of scores as a pandas DataFrame, a row a category.

        Raises: ArtifactError for what holds none.
        """
        return to_frame(rows_of(self.document))


def read_body(place: Place[Document]) -> tuple[Json, str, Tensors]:
    """Read the file of the numbers: the document it carries, its digest, and its tensors if any.

    Raises: NotInStore, CorruptStore.
    """
    where = place.where(BODY[place.kind])
    data = place.store.get(place.name(BODY[place.kind]), _most_bytes(place, where))
    digest = hashlib.sha256(data).hexdigest()
    carried = read_document(carried_document(data, where), where, place.kind, SAY[place.kind])
    document = parse(describe(carried, digest), place, where)
    tensors = {} if data[:4] == b"PAR1" else decode_tensors(data, where)
    check_tensors(document, tensors, where)
    return carried, digest, tensors


def _most_bytes(place: Place[Document], where: str) -> int:
    """Give the most bytes that the file of the numbers may have, before it takes memory.

    A large one has as many as its head, which is read first, asks for.
    """
    store, name = place.store, place.name(BODY[place.kind])
    size_bytes = store.size(name) or 0
    if size_bytes <= SMALL_OBJECT_BYTES:
        return SMALL_OBJECT_BYTES
    head_bytes = 8 + int.from_bytes(store.get_range(name, 0, 8), "little")
    head = store.get_range(name, 0, min(head_bytes, LARGEST_BYTES, size_bytes))
    carried = read_document(carried_document(head, where), where, place.kind, SAY[place.kind])
    return head_bytes + tensor_bytes(parse(describe(carried, "0" * 64), place, where))


def describe(carried: Json, digest: str) -> Json:
    """Give the JSON of an artifact: what its numbers carry, when, and their digest."""
    return {**carried, "created": now(), "digest": digest}


def read_json(place: Place[D]) -> tuple[Json, D]:
    """Read the JSON, as it is and parsed. Raises: NotInStore, CorruptStore."""
    where = place.where(JSON[place.kind])
    data = place.store.get(place.name(JSON[place.kind]), LARGEST_BYTES)
    raw = read_document(data, where, place.kind, SAY[place.kind])
    return raw, parse(raw, place, where)


def parse(raw: Json, place: Place[D], where: str) -> D:
    """Give the document of the artifact at a place. Raises: CorruptStore."""
    document = parse_document(raw, place.document, where)
    if place.folder and place.folder != folder(place.kind, document.id):
        raise CorruptStore(f"{where}: id is {document.id}, which is not its folder's name")
    return document


def read_both(place: Place[D]) -> Artifact[D]:
    """Read an artifact whose JSON and numbers belong together. Raises: NotInStore, CorruptStore."""
    raw, document = read_json(place)
    body = place.where(BODY[place.kind])
    try:
        carried, digest, tensors = read_body(place)
    except NotInStore:
        raise CorruptStore(f"{body} is missing, its JSON is there") from None
    if raw["digest"] != digest:
        raise CorruptStore(f"{body} is not the file its JSON was written for")
    for difference in differences(raw, carried):
        raise CorruptStore(f"{place.where(JSON[place.kind])} was changed: {difference} ({body})")
    return Artifact(place, document, tensors)


def differences(raw: Json, carried: Json) -> list[str]:
    """Say in what a JSON differs from what the numbers carry, when and their digest aside."""
    return explain_difference({k: v for k, v in raw.items() if k not in NOT_CARRIED}, carried)


def is_sound(place: Place[Document]) -> bool:
    """Tell whether the numbers are whole, as far as what is there can tell."""
    try:
        carried, digest, _ = read_body(place)
    except (CorruptStore, NotInStore):
        return False
    try:
        raw, _ = read_json(place)
    except (NotInStore, CorruptStore):
        return True  # nothing but the numbers themselves says what they should be
    return raw["digest"] == digest or bool(differences(raw, carried))
