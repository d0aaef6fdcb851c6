"""Score: turn cached tokens into anomaly maps, image scores and metrics, category by category.

Any number of guides score a target in one pass over its tokens and masks (`score_group`); `score`
is a group of one, and what comes out does not depend on the company. Guides that differ in their
config's pooling or AUPRO alone share their maps and pixel counts as well, so a sweep over tau costs
little more than one of its points. A group holds one category's maps at a time, as a single one
does, and 3 kB an image of the category and detector; no group has to be split for memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cache.maps import finish_maps, has_maps
from cache.objects import Objects
from pipeline.artifacts import (
    Artifact,
    find_artifact,
    folder,
    give,
    save_artifact,
)
from pipeline.artifacts.documents import ScoresDocument
from pipeline.configs import ClusterConfig, ScoreConfig
from pipeline.detection.find import AnyDetector, fitted_on
from pipeline.detection.sources import join
from pipeline.inputs import CachedDataset
from pipeline.machine.device import resolve_device
from pipeline.scoring.blocks import (
    MapPlan,
    ScoreJob,
    Scoring,
    maps_shape,
    open_score_job,
    open_scoring,
    report_taus,
)
from pipeline.scoring.categories import CategoryScores, score_categories
from pipeline.scoring.chance import remark_chance
from pipeline.scoring.document import categories_file, images_table, scores_document
from pipeline.scoring.overlap import remark_seen
from pipeline.scoring.requests import Request, Wanted, passes, read_requests
from pipeline.terminal.progress import say
from pipeline.workers.open import open_workers
from spg_core.errors import MetricError, SpgError
from spg_core.pooling import Pooling

MAPS = "maps.zarr"
REPORT = "report.html"


@dataclass(frozen=True)
class _Extras:
    """What is made besides the metrics, and who does the work."""

    save_maps: bool
    report: bool
    cluster: ClusterConfig


def score(
    store: Objects,
    guides: str | AnyDetector,
    dataset: str,
    config: ScoreConfig,
    *,
    key: str | None = None,
    save_maps: bool = False,
    report: bool = False,
    cluster: ClusterConfig | None = None,
    direct: bool = True,
) -> Artifact[ScoresDocument]:
    """Score a cached dataset with guides, a memory or a combination, or find the same scores.

    `latest` means these scores from then on, unless they are a step (`direct`) of something else.
    What comes out does not depend on `cluster`, to the last bit on like processors.

    Raises: NotInStore, ArtifactError, MetricError, StoreError, ClusterError.
    """
    extras = _Extras(save_maps, report, cluster or ClusterConfig())
    [made] = _score(store, [(guides, config)], dataset, key, extras)
    scores = give(made, direct=direct)
    remark_chance(store, scores, guides)
    return scores


def score_group(
    store: Objects,
    wanted: Sequence[Wanted],
    dataset: str,
    *,
    key: str | None = None,
) -> list[Artifact[ScoresDocument] | SpgError]:
    """Score a cached dataset with many guides at once, in this process.

    Args:
        store: holds guides and tokens.
        wanted: guides and how to score with them; those scored already are found.
        dataset: the target.
        key: of its cache, where there are several.

    Returns:
        In the order of `wanted` what `score` of each alone gives or raises. Scores are written when
        all are done: what kills a group costs all of it.

    Raises: StoreError where nothing can be written.
    """
    return _score(store, wanted, dataset, key, _Extras(False, False, ClusterConfig()))


def _score(
    store: Objects,
    wanted: Sequence[Wanted],
    dataset: str,
    key: str | None,
    extras: _Extras,
) -> list[Artifact[ScoresDocument] | SpgError]:
    found: list[Request | Artifact[ScoresDocument] | SpgError] = [
        _known(store, one, extras) if isinstance(one, Request) else one
        for one in read_requests(store, wanted, dataset, key)
    ]
    requests = {one.id: one for one in found if isinstance(one, Request)}
    made: dict[str, Artifact[ScoresDocument] | SpgError] = {}
    if requests:
        store.check_writable()
        for members in passes(list(requests.values())):
            made |= _score_members(store, members, extras)
    return [made[one.id] if isinstance(one, Request) else one for one in found]


def _known(
    store: Objects, one: Request, extras: _Extras
) -> Artifact[ScoresDocument] | Request | SpgError:
    """Give the scores that are there already, or the request for them."""
    try:
        known = find_artifact(store, ScoresDocument, one.id, categories_file)
        if known is None or not _has_extras(store, one.id, one.data, extras):
            return one
    except SpgError as error:
        return error
    say(f"scores {one.id} are there already")
    return known


def _has_extras(store: Objects, identifier: str, data: CachedDataset, extras: _Extras) -> bool:
    place = folder("scores", identifier)
    return (not extras.report or store.size(f"{place}/{REPORT}") is not None) and (
        not extras.save_maps or has_maps(store, f"{place}/{MAPS}", maps_shape(data))
    )


def _score_members(
    store: Objects, members: Sequence[Request], extras: _Extras
) -> dict[str, Artifact[ScoresDocument] | SpgError]:
    """Score and save requests of one pass; an error of one's own sinks no other."""
    # a memory is of the product that it is asked about
    fitted = [fitted_on(one.parent) for one in members if one.parent.place.kind != "memories"]
    for parent in {one.key: one for one in fitted}.values():
        remark_seen(store, parent, members[0].data)
    sharing: dict[tuple[str, str, float, str], list[Request]] = {}
    for one in members:
        config = one.config
        maps = (one.parent.id, config.coefficients, config.sigma, config.image_score)
        sharing.setdefault(maps, []).append(one)
    results: dict[str, Artifact[ScoresDocument] | SpgError] = {}
    try:
        data = join([one.data for one in members])
        scored = _score_all(store, data, list(sharing.values()), extras)
    except SpgError as error:
        return dict.fromkeys([one.id for one in members], error)
    for requests, categories in zip(sharing.values(), scored, strict=True):
        for at, one in enumerate(requests):
            if isinstance(categories, MetricError):
                results[one.id] = categories
                continue
            try:
                found = [by_config[at] for by_config in categories]
                results[one.id] = _save(store, one, found, report=extras.report)
            except SpgError as error:
                results[one.id] = error
    return results


def _score_all(
    store: Objects, data: CachedDataset, sharing: Sequence[Sequence[Request]], extras: _Extras
) -> list[list[list[CategoryScores]] | MetricError]:
    """Score every category here or by workers, with each list of requests that share maps."""
    plans = [_plan(store, requests, extras) for requests in sharing]
    configs = [[one.config for one in requests] for requests in sharing]
    device = configs[0][0].device
    job = ScoreJob([one.parent for one in (data, *data.others)], plans, device)
    with open_workers(
        store,
        extras.cluster,
        open_score_job,
        job,
        here=lambda: open_scoring(store, data, plans, device),
    ) as workers:
        workers.ask_all(_is_ready)
        scored = score_categories(workers, data, plans, configs)
    for plan, categories in zip(plans, scored, strict=True):
        for name in plan.kept_as if not isinstance(categories, MetricError) else ():
            finish_maps(store, name, maps_shape(data))
    return scored


def _plan(store: Objects, requests: Sequence[Request], extras: _Extras) -> MapPlan:
    """Plan the maps that some requests share; those that are kept already stay as they are."""
    shape = maps_shape(requests[0].data)
    poolings = [one.config.pooling for one in requests]
    poolings += [Pooling(tau) for tau in report_taus()] if extras.report else []
    names = [f"{folder('scores', one.id)}/{MAPS}" for one in requests] if extras.save_maps else []
    missing = tuple(name for name in names if not has_maps(store, name, shape))
    return MapPlan(
        detector=requests[0].detector,
        poolings=tuple(dict.fromkeys(poolings)),
        aupros=tuple(dict.fromkeys(one.config.aupro for one in requests)),
        kept_as=missing,
        curves=extras.report,
    )


def _is_ready(_: Scoring) -> bool:
    """Be asked in every worker before work starts: opening the job was the question."""
    return True


def _save(
    store: Objects, request: Request, found: Sequence[CategoryScores], *, report: bool
) -> Artifact[ScoresDocument]:
    """Write tables and document, then the report, so that no page costs the numbers."""
    parent, data, config = request.parent, request.data, request.config
    document = scores_document(request.id, parent, data, config, found)
    made = save_artifact(store, document, images_table(found, data), categories_file)
    if report:
        from pipeline.scoring.report_data import make_report

        here = request.detector.to(resolve_device(config.device))
        page = make_report(store, made.document, found, data, here, parent)
        store.replace(made.place.name(REPORT), [page.encode()])
    return made
