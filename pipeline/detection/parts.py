"""Parts: each turns the tokens of one cache, a backbone at a layer, into values in [0, 1].

A part knows nothing of pixels and of other parts. Parts of one cache share its tokens, which come
to them cast to float32 and brought to length 1, once for all. The kinds are a closed set: `Part`
is the union of them.

Axes: B images, all of one category; P values an image, one a patch of the spec's grid.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import GuidesDocument, MemoryDocument
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import Coefficients
from pipeline.detection.memory_part import MemoryPart, memory_part
from spg_core.guides import patch_probabilities

Reads: TypeAlias = Literal["patches", "cls"]


@dataclass(frozen=True)
class GuidesPart:
    """A pair of guides: p_A, the softmax of a token's cosines with the two."""

    id: str
    """Of the artifact."""
    spec: BackboneSpec
    """Whose tokens it takes."""
    guides: Tensor
    """`(2, d_model)` float32: normal, anomalous."""
    temperature: float
    coefficients: Coefficients = "ema"
    """Which of the artifact's pairs this is."""
    reads: Reads = "patches"
    """Which tokens it takes: one a patch, or the one of the whole image, which makes no map."""

    @property
    def key(self) -> str:
        """What tells it from every other part: parts of one key give the same values."""
        return f"{self.id}/{self.coefficients}"

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.guides.device

    def values(self, unit_tokens: Tensor, category: str | None = None) -> Tensor:
        """Give values `(B, P)` in [0, 1], larger is more anomalous.

        Args:
            unit_tokens: float32 tokens of length 1, `(B, P, d_model)`, on its device; P is 1 for
                one that reads CLS tokens.
            category: of the images; None where nobody knows. All guides serve every category.
        """
        return patch_probabilities(unit_tokens, self.guides, self.temperature)

    def to(self, device: torch.device | str) -> "GuidesPart":
        """Give the same part on another device."""
        return replace(self, guides=self.guides.to(device))


Part: TypeAlias = GuidesPart | MemoryPart
"""Every kind has `id`, `spec`, `key`, `reads`, `device`, `values`, `to`, as `GuidesPart` says."""


def part_of(
    artifact: Artifact[GuidesDocument] | Artifact[MemoryDocument], coefficients: Coefficients
) -> Part:
    """Make the part that an artifact is."""
    if isinstance(artifact.document, MemoryDocument):
        return memory_part(artifact)
    return GuidesPart(
        id=artifact.id,
        spec=artifact.document.backbone.spec,
        guides=artifact.tensors[f"guides_{coefficients}"].float(),
        temperature=artifact.document.config.temperature,
        coefficients=coefficients,
        reads=artifact.document.config.on,
    )
