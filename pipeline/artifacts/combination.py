"""`combination.json`: which parts meet in one detector, and how."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from pipeline.artifacts.base import Document, check_backbone
from pipeline.artifacts.terms import Amount, Backbone, CacheParent, Part, Share
from pipeline.configs import CombineConfig
from pipeline.kinds import Kind
from spg_core.errors import ArtifactError

PartKind = Literal["guides", "memories"]


@dataclass(frozen=True, kw_only=True)
class CombinationParents:
    """What a combination was made from, by kind; `parts` says in which order."""

    cache: CacheParent | None = None
    """The auxiliary tokens that weights or scales were fitted on; None where nothing was fitted."""
    guides: list[Part]
    memories: list[Part]


@dataclass(frozen=True, kw_only=True)
class StoredScale:
    """What puts a part's values v on a common scale: sigmoid(slope * v + shift)."""

    slope: Amount
    shift: Annotated[float, Meta(ge=-1e300, le=1e300)]


@dataclass(frozen=True, kw_only=True)
class CombinedPart:
    """One part."""

    kind: PartKind
    id: Part
    weight: Share
    """Of its map in the mean; those of all parts sum to 1."""
    scale: StoredScale | None
    """None where its values stay as they are."""


@dataclass(frozen=True, kw_only=True)
class CombinationDocument(Document):
    """`combination.json`."""

    kind: ClassVar[Kind] = "combinations"
    config: CombineConfig
    parents: CombinationParents
    fitted_on: CacheParent
    """The cache that the first part was fitted on."""
    recipe: Literal["released", "paper"]
    """Of the first guides."""
    backbone: Backbone
    """Of the first part, whose input size is the maps'."""
    parts: Annotated[list[CombinedPart], Meta(min_length=2, max_length=64)]

    def check(self) -> None:
        """Raises: ArtifactError."""
        check_backbone(self.backbone)
        for kind, named in (("guides", self.parents.guides), ("memories", self.parents.memories)):
            ids = [one.id for one in self.parts if one.kind == kind]
            if ids != named:
                raise ArtifactError(f"parents.{kind} is {named}, the parts are {ids}")
        total = sum(one.weight for one in self.parts)
        if abs(total - 1) > 1e-6:
            raise ArtifactError(f"the weights of the parts sum to {total}, not to 1")
