"""Calibrate: choose a threshold on images whose labels are known, and keep it with the detector.

The request is compared with what is saved under the name before anything is scored: the same one is
found, another one is refused unless it may be replaced. What is kept of good parts is written first
and the threshold names it by digest, so no reader ever sees one with the parts of another.
"""

from contextlib import suppress

import numpy as np

from cache.objects import Objects
from pipeline.artifacts.notes import (
    Chosen,
    ThresholdDocument,
    ThresholdRequest,
    write_new_note,
    write_note,
)
from pipeline.calibration.cached_parts import cached_parts
from pipeline.calibration.criterion import Labels, choose, require_choice
from pipeline.calibration.known_parts import KnownParts
from pipeline.calibration.own_parts import own_parts
from pipeline.configs import CalibrateConfig, CalibrateSource, ScoreConfig
from pipeline.detection.find import AnyDetector
from pipeline.prediction.familiar import Learner
from pipeline.prediction.familiar_file import drop_familiar, save_familiar
from pipeline.prediction.threshold import describe, file_of, load_threshold, scoring_of
from pipeline.terminal.progress import say
from spg_core.errors import CorruptStore, NotInStore, OptionsDisagree, StoreError
from spg_core.familiarity import FEWEST


class ThresholdTaken(StoreError):
    """A name means a threshold that another request made."""


def calibrate(
    store: Objects,
    guides: AnyDetector,
    scoring: ScoreConfig,
    source: CalibrateSource,
    config: CalibrateConfig,
) -> ThresholdDocument:
    """Choose a threshold of a detector and save it with it, or find what the same request saved.

    Args:
        store: holds the token caches.
        guides: whose threshold it becomes: guides, a memory or a combination.
        scoring: how images are scored.
        source: which images.
        config: how the threshold is chosen, and its name.

    Raises: ConfigError, DatasetError, MetricError (what cannot be promised, or judges nothing),
        ArtifactError, NotInStore, StoreError (a name that is taken), CorruptStore.
    """
    if config.per_category and source.good:
        raise OptionsDisagree(
            "--per-category is for the categories of a dataset; calibrate own parts once a "
            "category, --good FOLDER/NAME --category NAME --name NAME, and predict --category NAME "
            "takes the one of that category"
        )
    guides.place.store.check_writable()  # not after minutes of scoring
    if source.good:
        parts = own_parts(guides, scoring, source)
    else:
        parts = cached_parts(store, guides, scoring, source)
    asked = _asked(parts, scoring, config)
    saved = None if config.replace else _saved(guides, asked, config.name)
    if saved is not None:
        say(f"the threshold {config.name} is there already; --replace chooses it anew")
        return saved
    chosen = _choose(asked, parts)
    document = ThresholdDocument(
        guides=guides.id,
        name=config.name,
        asked=asked,
        chosen=chosen,
        familiar=_keep_familiar(guides, parts.learner, config.name),
    )
    return _replace(guides, document) if config.replace else _write(guides, document)


def _choose(asked: ThresholdRequest, parts: KnownParts) -> list[Chosen]:
    """Choose the one threshold, or one a category; what cannot be is refused before it is scored.

    Raises: MetricError; as the parts' `score`.
    """
    groups = _groups(asked, parts)
    for category, own in groups.items():
        require_choice(parts.labels[own], asked, category)
    scores = parts.score()
    return [choose(scores[own], parts.labels[own], asked, one) for one, own in groups.items()]


def _keep_familiar(guides: AnyDetector, learner: Learner | None, name: str) -> str | None:
    """Keep what good parts look like; give its digest, None where they are too few."""
    if learner is None:
        return None
    if len(learner) < FEWEST:
        say(f"{len(learner)} good parts are too few to tell images unlike them; it takes {FEWEST}")
        return None
    return save_familiar(guides, learner.familiar(name))


def _asked(parts: KnownParts, scoring: ScoreConfig, config: CalibrateConfig) -> ThresholdRequest:
    by_f1 = config.rate is None and bool(parts.labels.any())
    return ThresholdRequest(
        criterion="f1max" if by_f1 else "rate",
        rate=config.rate,
        confidence=None if by_f1 else config.confidence,
        per_category=config.per_category,
        scoring=scoring_of(scoring),
        calibrated_on=parts.told,
    )


def _saved(guides: AnyDetector, asked: ThresholdRequest, name: str) -> ThresholdDocument | None:
    """Give what the same request saved under a name, None where there is nothing.

    Raises: ThresholdTaken where another one did, CorruptStore.
    """
    try:
        saved = load_threshold(guides, name)
    except NotInStore:
        return None
    if saved.asked == asked:
        return saved
    told = describe(saved, saved.chosen[0])
    raise ThresholdTaken(
        f"{guides.id} has the threshold {told}; give this one another --name, or --replace that"
    )


def _groups(asked: ThresholdRequest, parts: KnownParts) -> dict[str | None, Labels]:
    """Tell which images are of each category, or of none where one threshold serves all."""
    if not asked.per_category:
        return {None: np.full(len(parts.labels), True)}
    of_category = np.array(parts.categories)
    return {name: of_category == name for name in sorted(set(parts.categories))}


def _write(guides: AnyDetector, document: ThresholdDocument) -> ThresholdDocument:
    """Save a threshold; where somebody else just saved one, take theirs if it is of this request.

    Raises: ThresholdTaken, StoreError.
    """
    place = guides.place
    if write_new_note(place.store, place.name(file_of(document.name)), document):
        return document
    if _familiar_of(guides, document.name) != document.familiar:
        drop_familiar(guides, document.familiar)
    return _saved(guides, document.asked, document.name) or document


def _replace(guides: AnyDetector, document: ThresholdDocument) -> ThresholdDocument:
    """Save a threshold in place of another, whose good parts go with it. Raises: StoreError."""
    before = _familiar_of(guides, document.name)
    write_note(guides.place.store, guides.place.name(file_of(document.name)), document)
    if before != document.familiar:
        drop_familiar(guides, before)
    return document


def _familiar_of(guides: AnyDetector, name: str) -> str | None:
    """Give the digest of the good parts that the threshold of a name has, as far as it tells."""
    with suppress(NotInStore, CorruptStore):
        return load_threshold(guides, name).familiar
    return None
