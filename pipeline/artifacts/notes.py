"""What is noted beside artifacts, a document each: thresholds, what `latest` and a name mean."""

import json
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeVar

from msgspec import Meta

from cache.objects import Objects
from pipeline.artifacts.parse import FORMAT, LARGEST_BYTES, parse_document, read_document, to_json
from pipeline.artifacts.terms import (
    CacheParent,
    Number,
    Part,
    Sha256,
    Share,
    Text,
    Time,
    Versions,
    now,
)
from pipeline.configs.common import ArtifactName, ImageScore, Pool
from pipeline.kinds import Kind
from pipeline.machine.versions import library_versions
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
    """What a threshold does to the images it was chosen on; None where none of them is bad."""

    n_normal: Number
    n_anomalous: Number
    fpr: Share
    tpr: Share | None
    precision: Share | None
    """None also where no image is flagged."""
    f1: Share | None
    normal_scores: tuple[Share, Share]
    """The lowest and the highest."""
    anomalous_scores: tuple[Share, Share] | None


@dataclass(frozen=True, kw_only=True)
class CalibratedOn:
    """Which images: a cache's, of some split and categories, or own ones by their digests."""

    cache: CacheParent | None
    """None where they are own images."""
    split: Literal["train", "test"] | None
    """None where images of any split were taken."""
    categories: list[Text]
    """All where empty."""
    good: list[Sha256]
    """Own images, in ascending order; empty with a cache."""
    bad: list[Sha256]
    is_auxiliary: bool
    """Whether the detector was fitted on these very images."""


@dataclass(frozen=True, kw_only=True)
class ThresholdRequest:
    """What a threshold follows from, besides the detector."""

    criterion: Literal["f1max", "rate"]
    rate: Share | None
    """The rate that was asked for; None for the least that could be promised."""
    confidence: Share | None
    """Of what is promised; None by criterion f1max."""
    per_category: bool
    scoring: Scoring
    calibrated_on: CalibratedOn


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One threshold."""

    category: Text | None
    """What it is for; None for all."""
    threshold: Share
    promised: Share | None
    """Rate of false alarms at most, with the confidence asked for; None by criterion f1max."""
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class ThresholdDocument:
    """`thresholds/NAME.json`, in the folder of the detector that it is for."""

    kind: ClassVar[str] = "threshold"
    guides: Part
    """The id of the detector."""
    name: ArtifactName
    asked: ThresholdRequest
    chosen: Annotated[list[Chosen], Meta(min_length=1)]
    """One, or one a category."""
    familiar: Sha256 | None
    """Of the file that holds what is known of its good parts; None where nothing is."""
    versions: Versions = field(default_factory=library_versions)
    created: Time = field(default_factory=now)

    @property
    def threshold(self) -> float | None:
        """The one of all categories; None where each has its own."""
        return None if self.asked.per_category else self.chosen[0].threshold

    def check(self) -> None:
        """Raises: ArtifactError."""
        names = [one.category for one in self.chosen]
        whole = not self.asked.per_category
        if (None in names) != whole or len(set(names)) < len(names):
            raise ArtifactError(f"asked.per_category is {not whole}, chosen are for {names}")
        promised = [one.promised for one in self.chosen]
        has_none = self.asked.criterion == "f1max"
        if any((one is None) != has_none for one in (self.asked.confidence, *promised)):
            raise ArtifactError(
                f"criterion is {self.asked.criterion} with confidence {self.asked.confidence}, "
                f"promised {promised}"
            )


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


THRESHOLDS = "thresholds"
"""In a detector's folder: a note each."""

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
