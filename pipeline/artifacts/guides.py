"""`guides.json`: what guides were made from, what they use of it, how they were trained."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from pipeline.artifacts.base import Document, check_backbone
from pipeline.artifacts.terms import Backbone, CacheParent, Number, Pair, Part, SaeFile, Share
from pipeline.configs import FitGuidesConfig
from pipeline.kinds import Kind
from spg_core.errors import ArtifactError


@dataclass(frozen=True, kw_only=True)
class GuidesParents:
    """What guides were made from."""

    cache: CacheParent
    sae: Part | None = None
    """An SAE of the store."""
    file: SaeFile | None = None
    """One of others."""

    @property
    def over(self) -> str:
        """The SAE's id, or the file's name."""
        return self.sae or f"file {self.file.name if self.file else '?'}"


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """What guides combine."""

    kind: Literal["sae", "pca", "random", "none"]
    atoms: Annotated[int, Meta(ge=1, le=2**31)]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Non-zero coefficients and l1 norm of each guide."""

    nnz: Pair
    l1: Pair


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """What the guides use of the dictionary, by their last coefficients and by the average."""

    raw: Counts
    ema: Counts


@dataclass(frozen=True, kw_only=True)
class GuidesTraining:
    """How guides were trained."""

    steps: Number
    ema_start_share: Share
    """What the average still holds of its start."""


@dataclass(frozen=True, kw_only=True)
class GuidesDocument(Document):
    """`guides.json`."""

    kind: ClassVar[Kind] = "guides"
    config: FitGuidesConfig
    parents: GuidesParents
    backbone: Backbone
    dictionary: Dictionary
    sparsity: Sparsity
    training: GuidesTraining

    def check(self) -> None:
        """Raises: ArtifactError."""
        check_backbone(self.backbone)
        if (self.parents.sae is None) == (self.parents.file is None):
            raise ArtifactError("parents names an SAE and a file of one, or neither")
        if self.dictionary.kind != self.config.dictionary:
            raise ArtifactError(
                f"dictionary.kind is {self.dictionary.kind}, config.dictionary "
                f"{self.config.dictionary}"
            )
