"""`familiar/SHA256.safetensors`: what is kept of known good parts, beside the threshold of theirs.

One file holds the tokens and the document that describes them, so the two cannot disagree. It is
called by the digest of its bytes, and the threshold names that: whoever calibrates at the same time
under the same name, a threshold has its own good parts or none. It goes with its detector when that
is pushed, pulled, checked or removed.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from msgspec import Meta

from pipeline.artifacts.base import Document
from pipeline.artifacts.bodies import carried_document, decode_tensors, encode_tensors
from pipeline.artifacts.notes import ThresholdDocument
from pipeline.artifacts.parse import FORMAT, LARGEST_BYTES, parse_document, read_document, to_json
from pipeline.artifacts.resolve import Place
from pipeline.artifacts.terms import Part, Text, Time, Versions, now
from pipeline.configs.common import ArtifactName
from pipeline.detection.find import AnyDetector
from pipeline.machine.versions import library_versions
from pipeline.prediction.familiar import Familiar
from pipeline.prediction.threshold import DEFAULT, list_thresholds, load_threshold
from pipeline.terminal.progress import say
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


def file_of(digest: str) -> str:
    """Give the file in its detector's folder."""
    return f"{FOLDER}/{digest}{ENDING}"


def save_familiar(guides: AnyDetector, made: Familiar) -> str:
    """Write what is kept; give its digest, which the threshold has to name. Raises: StoreError."""
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
    digest = hashlib.sha256(data).hexdigest()
    guides.place.store.put_new(guides.place.name(file_of(digest)), [data])
    return digest


def drop_familiar(guides: AnyDetector, digest: str | None) -> None:
    """Remove what a threshold named that is there no more, if anything. Raises: StoreError."""
    if digest is not None:
        guides.place.store.delete(guides.place.name(file_of(digest)))


def choose_familiar(guides: AnyDetector, saved: ThresholdDocument | None) -> Familiar | None:
    """Read the good parts of the threshold in use.

    Without one, those of the only threshold that knows some, or of that called default; None where
    there are none.

    Raises: CorruptStore for a file that is torn, missing or of another detector.
    """
    if saved is not None:
        return load_familiar(guides.place, saved)
    every = (load_threshold(guides, name) for name in list_thresholds(guides))
    known = {one.name: one for one in every if one.familiar is not None}
    if len(known) == 1 or DEFAULT in known:
        return load_familiar(guides.place, known.get(DEFAULT) or next(iter(known.values())))
    if known:
        say(
            f"{guides.id} knows good parts of {', '.join(known)}, and none is taken: name the "
            "threshold that is meant by --threshold-name"
        )
    return None


def load_familiar(place: Place[Document], saved: ThresholdDocument) -> Familiar | None:
    """Read the good parts of a threshold in its detector's folder; None where it knows none.

    Raises: CorruptStore.
    """
    if saved.familiar is None:
        return None
    where, again = place.where(file_of(saved.familiar)), f"--name {saved.name} --replace"
    try:
        data = place.store.get(place.name(file_of(saved.familiar)), LARGEST_BYTES)
        if hashlib.sha256(data).hexdigest() != saved.familiar:
            raise CorruptStore(f"{where} is torn: its bytes are not those of its name")
        made, owner = decode_familiar(data, where)
    except NotInStore:
        raise CorruptStore(
            f"{where}, the good parts of the threshold {saved.name}, is not there; run again if it "
            f"was just calibrated anew, else calibrate again with {again}"
        ) from None
    except CorruptStore as error:
        raise CorruptStore(f"{error}; calibrate again with {again}") from None
    if (owner, made.name) != (saved.guides, saved.name):
        raise CorruptStore(
            f"{where} is {made.name!r} of {owner!r}; expected {saved.name!r} of {saved.guides!r}; "
            f"calibrate again with {again}"
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
