"""A memory as a part of a detector: how far a patch's token is from the nearest normal one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pipeline.artifacts import Artifact
from pipeline.artifacts.memory import MemoryDocument
from pipeline.backbones.spec import BackboneSpec
from spg_core.errors import ArtifactError
from spg_core.memory import nearest_distances


@dataclass(frozen=True)
class MemoryPart:
    """Tokens of normal images of each category; a value is half of 1 - cosine to the nearest."""

    id: str
    """Of the artifact."""
    spec: BackboneSpec
    """Whose tokens it takes."""
    tokens: Tensor
    """`(m, d_model)` float16, one category's after the other's."""
    spans: Mapping[str, slice]
    """Which of them are a category's."""

    @property
    def key(self) -> str:
        """What tells it from every other part: parts of one key give the same values."""
        return self.id if len(self.spans) > 1 else "/".join([self.id, *self.spans])

    @property
    def reads(self) -> Literal["patches"]:
        """Which tokens it takes."""
        return "patches"

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.tokens.device

    def values(self, unit_tokens: Tensor, category: str | None = None) -> Tensor:
        """Give values `(B, P)` in [0, 1], larger is more anomalous; 0.5 is at a right angle.

        Args:
            unit_tokens: float32 tokens of length 1, `(B, P, d_model)`, on its device.
            category: of the images, whose own memory is asked; None where there is but one.

        Raises: ArtifactError for a category without a memory, or none named of several.
        """
        span = self.spans[self.require_category(category)]
        return nearest_distances(unit_tokens, self.tokens[span]) / 2

    def of(self, category: str | None) -> "MemoryPart":
        """Give the memory of one category, to be asked whatever the images are of.

        None is the only one there is. Raises: ArtifactError.
        """
        own = self.require_category(category)
        tokens = self.tokens[self.spans[own]]
        return replace(self, tokens=tokens, spans={own: slice(0, len(tokens))})

    def require_category(self, category: str | None) -> str:
        """Give the category whose memory is asked. Raises: ArtifactError."""
        if category is None and len(self.spans) == 1:
            return next(iter(self.spans))
        if category is not None and category in self.spans:
            return category
        raise ArtifactError(
            f"memory {self.id} is of {', '.join(self.spans)}; "
            + (
                f"it has none of {category}"
                if category
                else "say of which the images are with --category"
            )
        )

    def to(self, device: torch.device | str) -> "MemoryPart":
        """Give the same part on another device."""
        return replace(self, tokens=self.tokens.to(device))


def memory_part(artifact: Artifact[MemoryDocument]) -> MemoryPart:
    """Make the part that a memory is."""
    document = artifact.document
    return MemoryPart(
        id=artifact.id,
        spec=document.backbone.spec,
        tokens=artifact.tensors["tokens"],
        spans=dict(document.spans),
    )
