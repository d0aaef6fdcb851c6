"""Which scores are wanted: of what, by which detector, how; and what one pass can serve."""

from collections.abc import Sequence
from dataclasses import dataclass

from cache.objects import Objects
from pipeline.artifacts import artifact_id, settings
from pipeline.configs import ScoreConfig
from pipeline.detection.detector import Detector
from pipeline.detection.find import AnyDetector, find_detector
from pipeline.detection.load import make_detector
from pipeline.detection.sources import open_sources
from pipeline.inputs import CachedDataset
from pipeline.kinds import SAY, Kind
from pipeline.scoring.unseen import memories_of, require_unseen
from spg_core.errors import SpgError

Wanted = tuple[str | AnyDetector, ScoreConfig]


@dataclass(frozen=True)
class Request:
    """Scores that somebody wants."""

    id: str
    parent: AnyDetector
    data: CachedDataset
    """The tokens of its first part; those of the others beside."""
    config: ScoreConfig
    detector: Detector


def read_requests(
    store: Objects, wanted: Sequence[Wanted], dataset: str, key: str | None
) -> list[Request | SpgError]:
    """Open detectors and the caches they take; give in order a request, or why it cannot be."""
    found: list[Request | SpgError] = []
    opened: dict[str, CachedDataset] = {}
    for guides, config in wanted:
        try:
            parent = find_detector(store, guides) if isinstance(guides, str) else guides
            detector = make_detector(parent, config)
            tokens = str([spec.covers() for spec in detector.specs])
            if tokens not in opened:
                opened[tokens] = open_sources(store, dataset, detector.specs, key)
            data = opened[tokens]
            require_unseen(data, memories_of(parent))
            identifier = scores_id(parent, data, config)
            found.append(Request(identifier, parent, data, config, detector))
        except SpgError as error:
            found.append(error)
    return found


def scores_id(parent: AnyDetector, data: CachedDataset, config: ScoreConfig) -> str:
    """Name scores by detector, caches and settings."""
    return scores_id_of(parent.place.kind, parent.id, data, config)


def scores_id_of(kind: Kind, identifier: str, data: CachedDataset, config: ScoreConfig) -> str:
    """Name the scores of a detector by its kind and id; it need not be there yet."""
    keys = [one.cache.key for one in (data, *data.others)]
    return artifact_id(
        f"{data.dataset}-from-{identifier.rpartition('-')[0]}",
        {
            SAY[kind]: identifier,
            "cache": keys if data.others else data.cache.key,
            "config": settings(config),
        },
    )


def passes(requests: Sequence[Request]) -> list[list[Request]]:
    """Group requests that one pass over the images serves, though their caches may be several."""
    groups: dict[tuple[str, int, int, str], list[Request]] = {}
    for one in requests:
        images, spec = str(one.data.cache.covers.get("images")), one.data.spec
        groups.setdefault((images, spec.height, spec.width, one.config.device), []).append(one)
    return list(groups.values())
