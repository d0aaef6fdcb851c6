"""Artifacts to detectors: the parts that an artifact is, or names, read from their store."""

from contextlib import suppress

from cache.objects import Objects
from cache.reader import open_cache
from cache.store import AnyStore, open_store
from manifests.table import manifest_from_bytes
from pipeline.artifacts import load_artifact
from pipeline.artifacts.combination import CombinationDocument, CombinedPart
from pipeline.artifacts.documents import Document
from pipeline.artifacts.resolve import Place
from pipeline.backbones.spec import slug
from pipeline.configs import Coefficients, ScoreConfig
from pipeline.detection.detector import Detector, detector_of
from pipeline.detection.find import AnyDetector, SingleDetector, find_detector, fitted_on
from pipeline.detection.parts import part_of
from pipeline.detection.sources import open_sources
from pipeline.inputs import CachedDataset
from spg_core.errors import ArtifactError, DatasetError, NotInStore, StoreError
from spg_core.meeting import Meeting, Scale


def load_detector(
    store: AnyStore, guides: str = "latest", config: ScoreConfig | None = None
) -> Detector:
    """Load a detector by its guides, memory or combination: an id, a name, a start, or `latest`.

    Raises: NotInStore, ArtifactError or CorruptStore, as `load_artifact`.
    """
    objects = open_store(store, read_only=True)
    return make_detector(find_detector(objects, guides), config or ScoreConfig())


def make_detector(artifact: AnyDetector, config: ScoreConfig) -> Detector:
    """Make a detector of an artifact that is already read.

    Raises: NotInStore, CorruptStore where a part of a combination cannot be had; ArtifactError for
        coefficients that its weights or scales were not fitted with.
    """
    parts = [part_of(one, config.coefficients) for one in singles(artifact)]
    meeting = None
    if isinstance(artifact.document, CombinationDocument):
        _require_fitted_with(artifact.document, config.coefficients)
        meeting = meeting_of(artifact.document)
    return detector_of(artifact.id, parts, config, meeting)


def open_fitted_on(store: Objects, artifact: AnyDetector, detector: Detector) -> CachedDataset:
    """Open the tokens that a detector's first part was fitted on, those of the others beside.

    Raises: NotInStore, ArtifactError, IncompleteCache, StoreError, CorruptStore.
    """
    source = fitted_on(artifact)
    return open_sources(store, source.dataset, detector.specs, source.key)


def fitted_aspects(artifact: AnyDetector) -> tuple[float, ...]:
    """Give the least and the largest width by height of the images that it was fitted on.

    Of caches that its store holds; a square where it holds none, as after a pull without tokens.
    """
    found: list[float] = []
    for one in singles(artifact):
        parent = one.document.parents.cache
        with suppress(StoreError, DatasetError):
            cache = open_cache(_home(one.place), parent.dataset, slug(parent.backbone), parent.key)
            if cache.n_images <= _MOST_LOOKED_AT:
                where = f"{cache.where}/manifest.parquet"
                images = manifest_from_bytes(cache.manifest_bytes(), where).table
                shapes = images["width"].to_numpy() / images["height"].to_numpy()
                found += [float(shapes.min()), float(shapes.max())]
    return (min(found), max(found)) if found else (1.0,)


_MOST_LOOKED_AT = 100_000
"""Images of a cache whose manifest is read for their shapes alone."""


def singles(artifact: AnyDetector) -> list[SingleDetector]:
    """Give the guides and memories that an artifact is, or that it combines.

    Raises: NotInStore, CorruptStore.
    """
    if isinstance(artifact.document, CombinationDocument):
        store = _home(artifact.place)
        return [_load_part(store, artifact.id, one) for one in artifact.document.parts]
    return [artifact]


def meeting_of(document: CombinationDocument) -> Meeting:
    """Give how the parts of a combination meet."""
    scales = (one.scale for one in document.parts)
    return Meeting(
        how="max" if document.config.combine == "max" else "mean",
        weights=tuple(one.weight for one in document.parts),
        scales=tuple(None if one is None else Scale(one.slope, one.shift) for one in scales),
    )


def _home(place: Place[Document]) -> Objects:
    """Give the store that an artifact is in, also where that was opened at the artifact itself."""
    if place.folder:
        return place.store
    return open_store(place.store.where.rstrip("/").rsplit("/", 2)[0], read_only=True)


def _load_part(store: Objects, combination: str, part: CombinedPart) -> SingleDetector:
    try:
        if part.kind == "guides":
            return load_artifact(store, "guides", part.id)
        return load_artifact(store, "memories", part.id)
    except NotInStore as error:
        raise NotInStore(f"{combination} lacks a part: {error}") from None


def _require_fitted_with(document: CombinationDocument, coefficients: Coefficients) -> None:
    """Refuse other coefficients than weights or scales were fitted with. Raises: ArtifactError."""
    fitted = document.config.combine == "learned" or any(one.scale for one in document.parts)
    if fitted and coefficients != document.config.coefficients:
        raise ArtifactError(
            f"{document.id} was fitted with the {document.config.coefficients} coefficients of its "
            f"guides and cannot score with the {coefficients} ones; combine them anew with "
            f"--coefficients {coefficients}"
        )
