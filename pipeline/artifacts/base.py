"""What all documents share: what every artifact says of itself, and the check of its backbone."""

from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.artifacts.terms import Backbone, Part, Sha256, Time, Versions, now
from pipeline.kinds import Kind
from pipeline.machine.versions import library_versions
from spg_core.errors import ArtifactError, BackboneError, ConfigError


@dataclass(frozen=True, kw_only=True)
class Document:
    """What every artifact says of itself."""

    kind: ClassVar[Kind]
    id: Part
    """Also the name of its folder."""
    versions: Versions = field(default_factory=library_versions)
    created: Time = field(default_factory=now)
    digest: Sha256 = field(default_factory=str)
    """SHA-256 of the file that holds its numbers; known once that is written."""

    def check(self) -> None:
        """Raises: ArtifactError, naming a field, where the document contradicts itself."""


def check_backbone(backbone: Backbone) -> None:
    """Refuse a backbone of which no model can be made. Raises: ArtifactError."""
    try:
        _ = backbone.spec
    except (BackboneError, ConfigError) as error:
        raise ArtifactError(f"backbone.covers: {error}") from None
