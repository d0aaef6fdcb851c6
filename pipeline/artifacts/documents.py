"""What is stored of an artifact besides its numbers: one frozen type a kind of document.

The types are docs/format.md in code: `parse` gives no document that is not of its type, in range
and in agreement with itself. A field with a default may be absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from pipeline.artifacts.base import Document as Document
from pipeline.artifacts.base import check_backbone
from pipeline.artifacts.combination import CombinationDocument as CombinationDocument
from pipeline.artifacts.guides import GuidesDocument as GuidesDocument
from pipeline.artifacts.memory import MemoryDocument as MemoryDocument
from pipeline.artifacts.terms import (
    Amount,
    Backbone,
    CacheParent,
    Metrics,
    Number,
    Part,
    Row,
    Text,
)
from pipeline.configs import (
    FigureConfig,
    FitSaeConfig,
    ReproduceConfig,
    ScoreConfig,
    SweepConfig,
)
from pipeline.kinds import DetectorKind, Kind
from spg_core.errors import ArtifactError


@dataclass(frozen=True, kw_only=True)
class SaeParents:
    """What an SAE was made from."""

    cache: CacheParent


@dataclass(frozen=True, kw_only=True)
class SaeQuality:
    """What an SAE makes of all tokens of its cache."""

    fvu: Amount
    l0: Amount
    """Mean non-zero latents a token."""
    dead_atoms: Number


@dataclass(frozen=True, kw_only=True)
class SaeTraining:
    """How an SAE was trained, for information."""

    path: Text
    steps: Number
    device: Text
    threads: Number
    products: Text = "onednn/onednn/onednn"
    """Who multiplied on a CPU, by the operands' layout: rows, right in columns, both in columns."""


@dataclass(frozen=True, kw_only=True)
class SaeDocument(Document):
    """`sae.json`."""

    kind: ClassVar[Kind] = "saes"
    config: FitSaeConfig
    parents: SaeParents
    backbone: Backbone
    quality: SaeQuality
    training: SaeTraining

    def check(self) -> None:
        """Raises: ArtifactError."""
        check_backbone(self.backbone)
        if self.quality.dead_atoms > self.config.width:
            raise ArtifactError(
                f"quality.dead_atoms is {self.quality.dead_atoms} of {self.config.width} atoms"
            )


@dataclass(frozen=True, kw_only=True)
class ScoresParents:
    """What scores were made from: the target's tokens and a detector, of one kind."""

    cache: CacheParent
    """Of the first part; its masks and labels made the metrics."""
    others: list[CacheParent] = field(default_factory=list)
    """Of the other parts, where they have caches of their own."""
    guides: Part | None = None
    memory: Part | None = None
    combination: Part | None = None

    @property
    def detector(self) -> tuple[DetectorKind, Part]:
        """The kind and the id of what scored."""
        [found] = self._named
        return found

    @property
    def _named(self) -> list[tuple[DetectorKind, Part]]:
        every: list[tuple[DetectorKind, Part | None]] = [
            ("guides", self.guides),
            ("memories", self.memory),
            ("combinations", self.combination),
        ]
        return [(kind, identifier) for kind, identifier in every if identifier is not None]

    def check(self) -> None:
        """Raises: ArtifactError."""
        if len(self._named) != 1:
            raise ArtifactError(
                "parents names no guides, memory or combination"
                if not self._named
                else f"parents names several detectors: {self._named}"
            )


@dataclass(frozen=True, kw_only=True)
class ScoresDocument(Document):
    """`metrics.json`."""

    kind: ClassVar[Kind] = "scores"
    config: ScoreConfig
    parents: ScoresParents
    fitted_on: CacheParent
    recipe: Literal["released", "paper"]
    backbone: Backbone
    aupro: Literal["exact", "clip200"]
    mean: Metrics
    categories: dict[Text, Metrics]

    def check(self) -> None:
        """Raises: ArtifactError."""
        check_backbone(self.backbone)
        self.parents.check()
        if self.aupro != self.config.aupro:
            raise ArtifactError(f"aupro is {self.aupro}, config.aupro {self.config.aupro}")
        if not self.categories:
            raise ArtifactError("categories is empty; scores are of one at least")
        named = {"mean": self.mean} | {f"categories.{n}": m for n, m in self.categories.items()}
        for where, metrics in named.items():
            for level in ("image", "pixel"):
                missing = [n for n, v in metrics.values.items() if v is None and level in n]
                if missing and getattr(metrics, f"{level}_reason") is None:
                    raise ArtifactError(f"{where}.{missing[0]} is null, without {level}_reason")


@dataclass(frozen=True, kw_only=True)
class SweepParents:
    """The caches of a sweep."""

    aux: CacheParent
    target: CacheParent
    others: tuple[CacheParent, ...] = ()
    """Those of further layers, auxiliary and target in turn."""


@dataclass(frozen=True, kw_only=True)
class SweepDocument(Document):
    """`sweep.json`."""

    kind: ClassVar[Kind] = "sweeps"
    config: SweepConfig
    parents: SweepParents
    points: Annotated[int, Meta(ge=1, le=2**31)]
    failed: list[Row]
    figures: list[Part]

    def check(self) -> None:
        """Raises: ArtifactError."""
        if len(self.failed) > self.points:
            raise ArtifactError(f"failed has {len(self.failed)} of {self.points} points")


@dataclass(frozen=True, kw_only=True)
class ReproducedDocument(Document):
    """`figure.json`."""

    kind: ClassVar[Kind] = "figures"
    config: ReproduceConfig
    varied: FigureConfig


DOCUMENTS: Mapping[Kind, type[Document]] = {
    one.kind: one
    for one in (
        SaeDocument,
        GuidesDocument,
        MemoryDocument,
        CombinationDocument,
        ScoresDocument,
        SweepDocument,
        ReproducedDocument,
    )
}
