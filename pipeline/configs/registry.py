"""What `ls`, `show`, `rm`, `name`, `push` and `pull` can be told."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pipeline.configs.common import ArtifactName, Checked
from pipeline.kinds import Kind
from spg_core.errors import OptionsDisagree
from spg_core.fields import ARGUMENT, FilePath, Name

Reference = Annotated[Name, ARGUMENT]


@dataclass(frozen=True, kw_only=True)
class LsConfig(Checked):
    """What is listed."""

    kinds: Annotated[tuple[Kind, ...], ARGUMENT] = ()
    """Only of these kinds: saes, guides, scores, .. All if none is given."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig(Checked):
    """What is described."""

    artifact: Reference
    """Id, name, start of an id, path, or KIND/latest."""
    out: FilePath | None = None
    """Also draw it to this .pdf, .svg or .png file: the training curves of an SAE or of guides, the
    heatmaps and layers of a sweep, a figure."""


@dataclass(frozen=True, kw_only=True)
class RmConfig(Checked):
    """What goes, and whether it does."""

    artifacts: Annotated[tuple[Name, ...], Meta(min_length=1), ARGUMENT]
    """Ids, names, starts of ids, or KIND/latest."""
    with_children: bool = False
    """Also remove what stands on them."""
    delete: bool = False
    """Delete; otherwise only say what would go."""


@dataclass(frozen=True, kw_only=True)
class NameConfig(Checked):
    """What is called how."""

    artifact: Reference
    """Id, name, start of an id, or KIND/latest; with --drop, the name that is taken away."""
    name: Annotated[ArtifactName | None, ARGUMENT] = None
    """Its name from now on, beside those it has."""
    move: bool = False
    """Take the name from the artifact that it means now."""
    drop: bool = False
    """Take the name away; the artifact stays."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range, or a name too many or too few."""
        super().__post_init__()
        if self.drop == (self.name is not None) or (self.drop and self.move):
            raise OptionsDisagree(
                "give an artifact and a name for it (--move takes the name from another), or a "
                "name alone with --drop"
            )


@dataclass(frozen=True, kw_only=True)
class _Transfer(Checked):
    """How an artifact is copied."""

    with_tokens: bool = False
    """Also the token caches that it was made from."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 4
    """Shards of a cache on their way at a time."""


@dataclass(frozen=True, kw_only=True)
class PushConfig(_Transfer):
    """What is copied, and where to."""

    artifact: Reference
    """Id, name, start of an id, path, or KIND/latest."""
    destination: Annotated[FilePath, ARGUMENT]
    """Store to copy to: a folder, s3://bucket/prefix or hf://user/repo; made if it is not there."""


@dataclass(frozen=True, kw_only=True)
class PullConfig(_Transfer):
    """What is copied, and where from."""

    artifact: Reference
    """Id, name, start of an id, or KIND/latest, as the other store has it."""
    source: Annotated[FilePath, ARGUMENT]
    """Store to copy from: a folder, s3://bucket/prefix or hf://user/repo."""
