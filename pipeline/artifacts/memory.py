"""`memory.json`: which normal images a memory of tokens stands on, category by category."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta

from pipeline.artifacts.base import Document, check_backbone
from pipeline.artifacts.terms import Backbone, CacheParent, Number, Sha256, Text
from pipeline.configs import FitMemoryConfig
from pipeline.kinds import Kind
from spg_core.errors import ArtifactError

Images = Annotated[list[Sha256], Meta(min_length=1, max_length=1_000_000)]


@dataclass(frozen=True, kw_only=True)
class MemoryParents:
    """What a memory was made from."""

    cache: CacheParent


@dataclass(frozen=True, kw_only=True)
class CategoryMemory:
    """What is remembered of one category."""

    images: Images
    """Ids of its images, in the order in which they were chosen."""
    rows: list[Number]
    """Of the same images in the cache."""
    tokens: Annotated[int, Meta(ge=1, le=2**31)]
    """How many of theirs are kept."""


@dataclass(frozen=True, kw_only=True)
class MemoryDocument(Document):
    """`memory.json`."""

    kind: ClassVar[Kind] = "memories"
    config: FitMemoryConfig
    parents: MemoryParents
    backbone: Backbone
    categories: dict[Text, CategoryMemory]
    """In the order in which their tokens are stored."""

    @property
    def image_ids(self) -> frozenset[str]:
        """Every image that is remembered, whatever its category."""
        return frozenset(image for one in self.categories.values() for image in one.images)

    @property
    def spans(self) -> Iterator[tuple[str, slice]]:
        """Each category with the rows of the tensors that are its own."""
        start = 0
        for name, one in self.categories.items():
            yield name, slice(start, start + one.tokens)
            start += one.tokens

    def check(self) -> None:
        """Raises: ArtifactError."""
        check_backbone(self.backbone)
        if not self.categories:
            raise ArtifactError("categories is empty; a memory is of one at least")
        for name, one in self.categories.items():
            _check_category(f"categories.{name}", one, self)


def _check_category(where: str, one: CategoryMemory, document: MemoryDocument) -> None:
    n_images, shots = len(one.images), document.config.shots
    if not n_images == len(one.rows) == len(set(one.images)) == len(set(one.rows)):
        raise ArtifactError(
            f"{where}.images names {n_images} images, {where}.rows {len(one.rows)} rows; "
            "expected one of each an image, none twice"
        )
    if shots not in (0, n_images):
        raise ArtifactError(f"{where}.images has {n_images} images, config.shots is {shots}")
    held = n_images * document.backbone.spec.grid.tokens_per_image
    kept = document.config.n_kept(held)
    if one.tokens != kept:
        raise ArtifactError(
            f"{where}.tokens is {one.tokens}; config.coreset keeps {kept} of {held}, as many as "
            "backbone.covers.grid gives the images"
        )
