"""What is noted beside artifacts, a document each: thresholds, what `latest` and a name mean."""

import json
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeVar

from msgspec import Meta

from cache.objects import Objects
from pipeline.artifacts.parse import FORMAT, LARGEST_BYTES, parse_document, read_document, to_json
from pipeline.artifacts.terms import CacheParent, Number, Part, Share, Time, Versions, now
from pipeline.configs.common import ImageScore, Pool
from pipeline.kinds import Kind
from pipeline.versions import library_versions
from spg_core.errors import ArtifactError


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """The settings that a score, and so a threshold, depends on."""

    pool: Pool = "lse"
    image_score: ImageScore = "map"
    tau: Annotated[float, Meta(ge=0)]
    sigma: Annotated[float, Meta(ge=0, le=1000)]
    coefficients: Literal["ema", "raw"]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in vars(self).items())


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a threshold does to the labelled images it was chosen on."""

    n_normal: Number
    n_anomalous: Number
    fpr: Share
    tpr: Share
    precision: Share | None
    """None where no image is flagged."""
    f1: Share


@dataclass(frozen=True, kw_only=True)
class ThresholdDocument:
    """`threshold.json`, beside the guides that it is for."""

    kind: ClassVar[str] = "threshold"
    guides: Part
    threshold: Share
    criterion: Literal["f1max", "fpr"]
    fpr: Annotated[float, Meta(ge=0, lt=1)] | None
    scoring: Scoring
    calibrated_on: CacheParent
    measured: Measured
    versions: Versions = field(default_factory=library_versions)
    created: Time = field(default_factory=now)

    def check(self) -> None:
        """Raises: ArtifactError."""
        if (self.fpr is None) != (self.criterion == "f1max"):
            raise ArtifactError(f"fpr is {self.fpr} with criterion {self.criterion}")


@dataclass(frozen=True, kw_only=True)
class _Meaning:
    """Which artifact a word means."""

    of: Kind
    id: Part

    def check(self) -> None:
        """Nothing can contradict itself here."""


@dataclass(frozen=True, kw_only=True)
class LatestDocument(_Meaning):
    """`latest/<kind>.json`: what the word `latest` means."""

    kind: ClassVar[str] = "latest"


@dataclass(frozen=True, kw_only=True)
class NameDocument(_Meaning):
    """`names/<kind>/<name>.json`: which artifact a name that a user gave means."""

    kind: ClassVar[str] = "name"


Note = ThresholdDocument | LatestDocument | NameDocument
N = TypeVar("N", ThresholdDocument, LatestDocument, NameDocument)


def write_note(store: Objects, name: str, note: Note) -> None:
    """Write a note in place of an earlier one. Raises: StoreError."""
    store.replace(name, [_encode(note)])


def write_new_note(store: Objects, name: str, note: Note) -> bool:
    """Write a note where there is none yet; False, and nothing changed, where there is one."""
    return store.put_new(name, [_encode(note)])


def _encode(note: Note) -> bytes:
    fields = {"format": FORMAT, "kind": note.kind, **to_json(note)}
    return json.dumps(fields, indent=1, allow_nan=False).encode()


def read_note(store: Objects, name: str, note: type[N]) -> N:
    """Read a note. Raises: NotInStore, CorruptStore naming file and field."""
    where = f"{store.where}/{name}"
    raw = read_document(store.get(name, LARGEST_BYTES), where, note.kind, f"a {note.kind}")
    return parse_document(raw, note, where)
