"""`familiar/NAME.safetensors`: what is kept of known good parts, beside the threshold of that name.

One file holds the tokens and the document that describes them, so the two cannot disagree. It goes
with its detector when that is pushed, pulled, checked or removed.
"""

import json
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from msgspec import Meta

from pipeline.artifacts.bodies import carried_document, decode_tensors, encode_tensors
from pipeline.artifacts.parse import FORMAT, LARGEST_BYTES, parse_document, read_document, to_json
from pipeline.artifacts.terms import Part, Text, Time, Versions, now
from pipeline.configs.common import ArtifactName, is_artifact_name
from pipeline.detection.find import AnyDetector
from pipeline.prediction.familiar import Familiar
from pipeline.prediction.threshold import DEFAULT
from pipeline.progress import say
from pipeline.versions import library_versions
from spg_core.errors import ArtifactError, CorruptStore, NotInStore
from spg_core.familiarity import MOST_TOKENS

FOLDER: Final = "familiar"
ENDING: Final = ".safetensors"
Aspect = Annotated[float, Meta(gt=0, le=1e6)]


@dataclass(frozen=True, kw_only=True)
class FamiliarDocument:
    """What the file says of its tokens."""

    kind: ClassVar[str] = "familiar"
    guides: Part
    """The id of the detector."""
    name: ArtifactName
    images: Annotated[int, Meta(ge=1, le=2**31)]
    """How many good parts they are of."""
    tokens: Annotated[int, Meta(ge=1, le=MOST_TOKENS)]
    width: Annotated[int, Meta(ge=1, le=2**20)]
    """Of a token."""
    limit: Annotated[float, Meta(gt=0, le=4)]
    aspects: tuple[Aspect, Aspect]
    waived: list[Text]
    versions: Versions = field(default_factory=library_versions)
    created: Time = field(default_factory=now)

    def check(self) -> None:
        """Raises: ArtifactError."""
        if self.aspects[0] > self.aspects[1]:
            raise ArtifactError(f"aspects is {self.aspects}; the lower one comes first")


def file_of(name: str) -> str:
    """Give the file in its detector's folder."""
    return f"{FOLDER}/{name}{ENDING}"


def save_familiar(guides: AnyDetector, made: Familiar) -> None:
    """Write what is kept, in place of what was. Raises: StoreError."""
    document = FamiliarDocument(
        guides=guides.id,
        name=made.name,
        images=made.images,
        tokens=len(made.tokens),
        width=made.tokens.shape[1],
        limit=made.limit,
        aspects=made.aspects,
        waived=sorted(made.waived),
    )
    text = json.dumps({"format": FORMAT, "kind": document.kind, **to_json(document)})
    data = encode_tensors({"tokens": made.tokens}, text)
    guides.place.store.replace(guides.place.name(file_of(made.name)), [data])


def drop_familiar(guides: AnyDetector, name: str) -> None:
    """Remove what is kept under a name, if anything. Raises: StoreError."""
    place = guides.place
    if place.store.size(place.name(file_of(name))) is not None:
        place.store.delete(place.name(file_of(name)))


def choose_familiar(guides: AnyDetector, name: str | None) -> Familiar | None:
    """Read what is kept under the name of the threshold in use.

    Without one, the only one there is, or that called default; None where there is none.

    Raises: CorruptStore for a file that is torn or of another detector.
    """
    if name is None:
        names = list_familiar(guides)
        name = names[0] if len(names) == 1 else DEFAULT
        if names and name not in names:
            say(
                f"{guides.id} knows good parts of {', '.join(names)}, and none is taken: name the "
                "threshold that is meant by --threshold-name"
            )
    try:
        return load_familiar(guides, name)
    except NotInStore:
        return None


def list_familiar(guides: AnyDetector) -> list[str]:
    """Give the names under which something is kept. Raises: StoreError."""
    place = guides.place
    folder = place.name(FOLDER)
    files = [entry.name.removeprefix(f"{folder}/") for entry in place.store.walk(folder)]
    return sorted(
        file.removesuffix(ENDING)
        for file in files
        if file.endswith(ENDING) and is_artifact_name(file.removesuffix(ENDING))
    )


def load_familiar(guides: AnyDetector, name: str) -> Familiar:
    """Read what is kept under a name. Raises: NotInStore, CorruptStore."""
    place, file = guides.place, file_of(name)
    where = place.where(file)
    data = place.store.get(place.name(file), LARGEST_BYTES)
    try:
        made, owner = decode_familiar(data, where)
    except CorruptStore as error:
        raise CorruptStore(f"{error}; calibrate again with --name {name} --replace") from None
    if (owner, made.name) != (guides.id, name):
        raise CorruptStore(
            f"{where} is {made.name!r} of {owner!r}; expected {name!r} of {guides.id!r}; calibrate "
            f"again with --name {name} --replace"
        )
    return made


def decode_familiar(data: bytes, where: str) -> tuple[Familiar, str]:
    """Give what a file holds, and the id of the detector that it is of. Raises: CorruptStore."""
    raw = read_document(carried_document(data, where), where, "familiar", "known good parts")
    told = parse_document(raw, FamiliarDocument, where)
    tensors = decode_tensors(data, where)
    tokens = tensors.get("tokens")
    if tokens is None or len(tensors) > 1:
        raise CorruptStore(f"{where} holds {', '.join(sorted(tensors))}; expected tokens alone")
    found = (str(tokens.dtype), tuple(tokens.shape))
    if found != ("torch.float16", (told.tokens, told.width)):
        raise CorruptStore(
            f"{where}: tokens are {found[0]} {found[1]}, expected torch.float16 "
            f"{(told.tokens, told.width)}"
        )
    if not bool(tokens.isfinite().all()):
        raise CorruptStore(f"{where}: tokens hold values that are not finite")
    made = Familiar(
        told.name, tokens, told.limit, told.aspects, told.images, frozenset(told.waived)
    )
    return made, told.guides
