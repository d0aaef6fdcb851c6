"""What a user means by `--guides`: guides, a memory or a combination, by whatever it is called."""

from typing import TypeAlias, cast, get_args

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.any_kind import resolve_any
from pipeline.artifacts.documents import (
    DOCUMENTS,
    CombinationDocument,
    Document,
    GuidesDocument,
    MemoryDocument,
)
from pipeline.artifacts.read import read_both
from pipeline.artifacts.resolve import Place, by_path, resolve
from pipeline.artifacts.terms import CacheParent
from pipeline.configs import Recipe
from pipeline.kinds import JSON, SAY, DetectorKind
from pipeline.terminal.progress import say
from spg_core.errors import ArtifactError, NotInStore

SingleDetector: TypeAlias = Artifact[GuidesDocument] | Artifact[MemoryDocument]
"""An artifact that is one part."""
AnyDetector: TypeAlias = SingleDetector | Artifact[CombinationDocument]
"""An artifact that scores images."""

KINDS: tuple[DetectorKind, ...] = get_args(DetectorKind)


def find_detector(store: Objects, reference: str) -> AnyDetector:
    """Read guides, a memory or a combination by id, name, start of an id, path, URL or `latest`.

    `latest` is the one that was last made or asked for, whatever its kind. Says what is meant.

    Raises: NotInStore where there is none, ArtifactError where several fit, of one kind or of
        several; CorruptStore as `load_artifact`.
    """
    place = _latest(store) if reference == "latest" else _only(store, reference)
    artifact = read_both(place)
    if reference != artifact.id:
        say(f"{SAY[place.kind]} {reference}: {artifact.id}")
    return cast(AnyDetector, artifact)


def recipe_of(detector: AnyDetector) -> Recipe:
    """Give the recipe from which options that are not given take their values."""
    match detector.document:
        case GuidesDocument() as guides:
            return guides.config.recipe
        case CombinationDocument() as combination:
            return combination.recipe
    return "released"


def fitted_on(detector: AnyDetector) -> CacheParent:
    """Give the cache that it, or its first part, was made from."""
    match detector.document:
        case CombinationDocument() as combination:
            return combination.fitted_on
        case GuidesDocument() | MemoryDocument() as one:
            return one.parents.cache


def _only(store: Objects, reference: str) -> Place[Document]:
    """Give the place that a path or URL leads to, or what is called so in the store."""
    paths = [place for kind in KINDS if (place := by_path(store, DOCUMENTS[kind], reference))]
    if not paths:
        return resolve_any(store, reference, KINDS)
    found = [one for one in paths if one.store.size(one.name(JSON[one.kind])) is not None]
    match found:
        case [only]:
            return only
        case []:
            raise NotInStore(f"{reference} holds no guides, memory or combination")
    named = " or ".join(one.where(JSON[one.kind]) for one in found)
    raise ArtifactError(f"{reference} holds several: give {named}")


def _latest(store: Objects) -> Place[Document]:
    """Give the place of what the newest note of `latest` names."""
    written = {entry.name: entry.modified for entry in store.walk("latest")}
    newest = max(KINDS, key=lambda kind: written.get(f"latest/{kind}.json", 0.0))
    return resolve(store, DOCUMENTS[newest], "latest")
