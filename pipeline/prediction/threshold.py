"""The score from which an image counts as anomalous: given, or one of those kept with the detector.

A saved threshold has a name and belongs to one way of scoring: with another pooling, sigma or set
of coefficients the scores mean something else, and it is not used. `pipeline.calibration.calibrate`
makes them; here one is chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.artifacts.memory import MemoryDocument
from pipeline.artifacts.notes import THRESHOLDS, Chosen, Scoring, ThresholdDocument, read_note
from pipeline.configs import ScoreConfig
from pipeline.configs.common import is_artifact_name
from pipeline.detection.find import AnyDetector
from pipeline.terminal.progress import say
from spg_core.errors import ConfigError, CorruptStore, NotInStore
from spg_core.false_alarms import promised

DEFAULT = "default"
EARLIER = "threshold.json"
"""What there was before thresholds had names."""
NORMAL, ANOMALOUS = "normal", "anomalous"


@dataclass(frozen=True)
class Threshold:
    """A threshold with where it comes from, or None with the reason why there is none."""

    value: float | None
    source: str | None
    """`given`, or its name and what it was calibrated for and on."""
    reason: str | None = None
    saved: ThresholdDocument | None = None
    """What was read of a saved one."""

    def verdict(self, score: float) -> str | None:
        """Judge a score: `anomalous` from the threshold on, `normal` below, None without one."""
        if self.value is None:
            return None
        return ANOMALOUS if score >= self.value else NORMAL


def scoring_of(config: ScoreConfig) -> Scoring:
    """Give the settings that a score, and so a threshold, depends on."""
    return Scoring(
        pool=config.pool,
        image_score=config.image_score,
        tau=config.tau,
        sigma=config.sigma,
        coefficients=config.coefficients,
    )


def choose_threshold(
    guides: AnyDetector,
    config: ScoreConfig,
    given: float | None = None,
    name: str | None = None,
    category: str | None = None,
) -> Threshold:
    """Take the given threshold, else the one meant of those saved, else none, saying why.

    Args:
        guides: whose saved thresholds are looked at.
        config: how images are scored.
        given: by the user, in [0, 1].
        name: of a saved one; None is the only one for these scores, or the one called default.
        category: of the images; None where nobody says.

    Raises: ConfigError for a given threshold outside [0, 1], one of other scores or categories, and
        where several could be meant; NotInStore for a name that is none; CorruptStore for a torn
        document.
    """
    if given is not None:
        if not 0 <= given <= 1:
            raise ConfigError(f"threshold is an image score in [0, 1], got {given}")
        return Threshold(given, "given")
    saved = _named(guides, config, name) if name else _meant(guides, config, category)
    if isinstance(saved, str):
        return Threshold(None, None, saved)
    chosen = _of_category(saved, category)
    if category is not None and not _is_for(saved, category):
        say(
            f"remark: nothing was calibrated for {category} alone; its images are judged by the "
            f"threshold {describe(saved, chosen)}. To have its own, calibrate with --category "
            f"{category} and a --name"
        )
    return Threshold(chosen.threshold, describe(saved, chosen), saved=saved)


def list_thresholds(guides: AnyDetector) -> list[str]:
    """Give the names of the thresholds saved with a detector. Raises: StoreError."""
    place = guides.place
    folder = place.name(THRESHOLDS)
    files = [entry.name.removeprefix(f"{folder}/") for entry in place.store.walk(folder)]
    names = [file.removesuffix(".json") for file in files if file.endswith(".json")]
    return sorted(filter(is_artifact_name, names))


def load_threshold(guides: AnyDetector, name: str) -> ThresholdDocument:
    """Read a threshold saved with a detector.

    Raises: NotInStore where there is none, CorruptStore for a file that is torn or belongs to
        another detector or name.
    """
    place, file = guides.place, file_of(name)
    again = f"; calibrate again with --name {name} --replace"
    try:
        saved = read_note(place.store, place.name(file), ThresholdDocument)
    except NotInStore:
        names = ", ".join(list_thresholds(guides)) or "no threshold"
        raise NotInStore(
            f"{guides.id} has no threshold {name!r}, it has {names}; make it with "
            f"{_remedy(guides, name)}"
        ) from None
    except CorruptStore as error:
        raise CorruptStore(f"{error}{again}") from None
    if (saved.guides, saved.name) != (guides.id, name):
        raise CorruptStore(
            f"{place.where(file)} is the threshold {saved.name!r} of {saved.guides!r}; expected "
            f"{name!r} of {guides.id!r}{again}"
        )
    return saved


def file_of(name: str) -> str:
    """Give the file of a threshold in its detector's folder."""
    return f"{THRESHOLDS}/{name}.json"


def describe(document: ThresholdDocument, chosen: Chosen) -> str:
    """Say in words which threshold it is, and where it comes from."""
    of = f" for {chosen.category}" if chosen.category else ""
    found, on = chosen.measured, document.asked.calibrated_on
    counts = f"{found.n_normal} normal images of {on.cache.dataset}" if on.cache else ""
    if on.cache and found.n_anomalous:
        counts = f"{found.n_normal} normal and {found.n_anomalous} anomalous images of "
        counts += on.cache.dataset
    elif not on.cache:
        bad = f" and {found.n_anomalous} bad" if found.n_anomalous else ""
        counts = f"{found.n_normal} good{bad} parts"
    if chosen.promised is None or document.asked.confidence is None:
        return f"{document.name}{of}, calibrated for F1-max on {counts}"
    told = promised(chosen.promised, document.asked.confidence)
    return f"{document.name}{of}, calibrated on {counts}: {told}"


def _named(guides: AnyDetector, config: ScoreConfig, name: str) -> ThresholdDocument:
    saved, scoring = load_threshold(guides, name), scoring_of(config)
    if saved.asked.scoring != scoring:
        raise ConfigError(
            f"the threshold {name} is for {saved.asked.scoring}, these scores are for {scoring}: "
            "score with its options, or name another"
        )
    return saved


def _meant(
    guides: AnyDetector, config: ScoreConfig, category: str | None
) -> ThresholdDocument | str:
    """Give the threshold that is meant where none is named, or the reason why there is none."""
    found = [load_threshold(guides, name) for name in list_thresholds(guides)]
    scoring, remedy = scoring_of(config), _remedy(guides)
    if not found:
        place, told = guides.place, ""
        if place.store.size(place.name(EARLIER)) is not None:
            told = f" ({place.where(EARLIER)} is of an earlier version and is not read)"
        return f"no threshold{told}: give --threshold, or save one with the detector by {remedy}"
    fitting = {one.name: one for one in found if one.asked.scoring == scoring}
    if not fitting:
        theirs = ", ".join(f"the threshold {one.name} is for {one.asked.scoring}" for one in found)
        return (
            f"{theirs}; these scores are for {scoring}: give --threshold, or run {remedy} with the "
            "same options and a --name"
        )
    fitting = {name: one for name, one in fitting.items() if _serves(one, category)} or fitting
    if len(fitting) > 1 and DEFAULT not in fitting:
        raise ConfigError(
            f"{guides.id} has several thresholds, choose one with --threshold-name: "
            f"{_listed(list(fitting.values()))}"
        )
    return fitting.get(DEFAULT) or next(iter(fitting.values()))


def _is_for(saved: ThresholdDocument, category: str) -> bool:
    """Tell whether a threshold was chosen on images of one category, as far as it tells."""
    only = saved.asked.calibrated_on.categories
    return saved.asked.per_category or only == [category]


def _serves(saved: ThresholdDocument, category: str | None) -> bool:
    """Tell whether a threshold may be used for a category; None is what nobody says."""
    known = {one.category for one in saved.chosen} | set(saved.asked.calibrated_on.categories)
    return category is None or known == {None} or category in known


def _of_category(saved: ThresholdDocument, category: str | None) -> Chosen:
    """Give the threshold for a category. Raises: ConfigError where it is not known or not there."""
    own = {one.category: one for one in saved.chosen}
    if saved.asked.per_category:
        if category is None and len(own) == 1:
            return saved.chosen[0]
        if category in own:
            return own[category]
        names = ", ".join(str(name) for name in own)
        raise ConfigError(
            f"the threshold {saved.name} is one for each of {names}; "
            + (f"there is none for {category}" if category else "say of which the images are ")
            + ("" if category else "with --category")
        )
    if not _serves(saved, category):
        told = ", ".join(saved.asked.calibrated_on.categories)
        raise ConfigError(
            f"the threshold {saved.name} was calibrated on {told}, these images are of "
            f"{category}; calibrate on such parts under another --name, or name another threshold"
        )
    return saved.chosen[0]


def _listed(found: Sequence[ThresholdDocument]) -> str:
    return "; ".join(
        describe(one, one.chosen[0])
        if not one.asked.per_category
        else f"{one.name}, one a category"
        for one in found
    )


def _remedy(guides: AnyDetector, name: str = DEFAULT) -> str:
    """Write the command that makes a threshold for any detector: from own good parts."""
    document, words = guides.document, f"spg-pipe calibrate --guides {guides.id} --good FOLDER"
    if isinstance(document, MemoryDocument) and len(document.categories) > 1:
        words += " --category NAME"
    return f"`{words}`" if name == DEFAULT else f"`{words} --name {name}`"
