"""Score: turn cached tokens into anomaly maps, image scores and metrics, category by category.

Any number of guides score a target in one pass over its tokens and masks (`score_group`); `score`
is a group of one, and what comes out does not depend on the company. Guides that differ in their
config's tau or AUPRO alone share their maps and pixel counts as well, so a sweep over tau costs
little more than one of its points. A group holds one category's maps at a time, as a single one
does, and 3 kB an image of the category and detector; no group has to be split for memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cache.maps import finish_maps, has_maps
from cache.objects import Objects
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    folder,
    is_complete,
    load_artifact,
    make_latest,
    save_artifact,
)
from pipeline.backbones.spec import require_same_tokens
from pipeline.configs import ClusterConfig, ScoreConfig, as_document
from pipeline.device import resolve_device
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.progress import say
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
from pipeline.scoring.detector import Detector, make_detector
from pipeline.scoring.document import (
    categories_table,
    images_table,
    metrics_document,
)
from pipeline.tables import as_parquet
from pipeline.work import open_workers
from spg_core.errors import MetricError, SpgError

MAPS = "maps.zarr"
REPORT = "report.html"


@dataclass(frozen=True)
class _Extras:
    """What is made besides the metrics, and who does the work."""

    save_maps: bool
    report: bool
    cluster: ClusterConfig


@dataclass(frozen=True)
class _Request:
    """Scores to be made: of what, by whom, how."""

    id: str
    guides: Artifact
    data: CachedDataset
    config: ScoreConfig
    detector: Detector


def score(
    store: Objects,
    guides: str | Artifact,
    dataset: str,
    config: ScoreConfig,
    *,
    key: str | None = None,
    save_maps: bool = False,
    report: bool = False,
    cluster: ClusterConfig | None = None,
    direct: bool = True,
) -> Artifact:
    """Score a cached dataset with fitted guides, or give the scores the same request made before.

    `latest` means these scores from then on, unless they are a step (`direct`) of something else.
    What comes out does not depend on `cluster`, to the last bit on like processors.

    Raises: NotInStore, ArtifactError, MetricError, StoreError, ClusterError.
    """
    extras = _Extras(save_maps, report, cluster or ClusterConfig())
    [made] = _score(store, [(guides, config)], dataset, key, extras)
    if isinstance(made, SpgError):
        raise made
    if direct:
        make_latest(store, made)
    return made


def score_group(
    store: Objects,
    wanted: Sequence[tuple[str, ScoreConfig]],
    dataset: str,
    *,
    key: str | None = None,
) -> list[Artifact | SpgError]:
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
    wanted: Sequence[tuple[str | Artifact, ScoreConfig]],
    dataset: str,
    key: str | None,
    extras: _Extras,
) -> list[Artifact | SpgError]:
    found: list[_Request | Artifact | SpgError] = []
    opened: dict[str, CachedDataset] = {}
    for guides, config in wanted:
        try:
            parent = load_artifact(store, "guides", guides) if isinstance(guides, str) else guides
            backbone = parent.document["backbone"]["name"]
            if backbone not in opened:
                opened[backbone] = open_dataset(store, dataset, backbone, key)
            found.append(_find(store, parent, opened[backbone], config, extras))
        except SpgError as error:
            found.append(error)
    requests = {one.id: one for one in found if isinstance(one, _Request)}
    groups: dict[tuple[str, str], list[_Request]] = {}
    for one in requests.values():
        groups.setdefault((one.data.cache.key, one.config.device), []).append(one)
    made: dict[str, Artifact | SpgError] = {}
    if groups:
        store.check_writable()
        for members in groups.values():
            made |= _score_members(store, members, extras)
    return [made[one.id] if isinstance(one, _Request) else one for one in found]


def _find(
    store: Objects, parent: Artifact, data: CachedDataset, config: ScoreConfig, extras: _Extras
) -> Artifact | _Request:
    """Give the scores that are there already, or what must be known to make them."""
    require_same_tokens(
        parent.document["backbone"]["covers"],
        data.spec.covers(),
        f"guides {parent.id}",
        data.cache.where,
    )
    settings = {name: value for name, value in as_document(config).items() if name != "device"}
    identifier = artifact_id(
        f"{data.dataset}-from-{parent.id.rpartition('-')[0]}",
        {"guides": parent.id, "cache": data.cache.key, "config": settings},
    )
    if _is_done(store, identifier, data, extras):
        say(f"scores {identifier} are there already")
        return load_artifact(store, "scores", identifier)
    return _Request(identifier, parent, data, config, make_detector(parent, config))


def _is_done(store: Objects, identifier: str, data: CachedDataset, extras: _Extras) -> bool:
    place = folder("scores", identifier)
    return (
        is_complete(store, "scores", identifier)
        and (not extras.report or store.size(f"{place}/{REPORT}") is not None)
        and (not extras.save_maps or has_maps(store, f"{place}/{MAPS}", maps_shape(data)))
    )


def _score_members(
    store: Objects, members: Sequence[_Request], extras: _Extras
) -> dict[str, Artifact | SpgError]:
    """Score and save requests for one cache and device; an error of one's own sinks no other."""
    data = members[0].data
    sources = [one.guides.document["parents"]["cache"] for one in members]
    if any(source["key"] == data.cache.key for source in sources):
        say(
            f"remark: the guides were fitted on {data.dataset}; these numbers say nothing about "
            "products that were not seen"
        )
    sharing: dict[tuple[str, str, float], list[_Request]] = {}
    for one in members:
        maps = (one.guides.id, one.config.coefficients, one.config.sigma)
        sharing.setdefault(maps, []).append(one)
    results: dict[str, Artifact | SpgError] = {}
    try:
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
    store: Objects, data: CachedDataset, sharing: Sequence[Sequence[_Request]], extras: _Extras
) -> list[list[list[CategoryScores]] | MetricError]:
    """Score every category here or by workers, with each list of requests that share maps."""
    plans = [_plan(store, requests, extras) for requests in sharing]
    configs = [[one.config for one in requests] for requests in sharing]
    device = configs[0][0].device
    job = ScoreJob(data.dataset, data.backbone, data.cache.key, plans, device)
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


def _plan(store: Objects, requests: Sequence[_Request], extras: _Extras) -> MapPlan:
    """Plan the maps that some requests share; those that are kept already stay as they are."""
    shape = maps_shape(requests[0].data)
    taus = [one.config.tau for one in requests] + list(report_taus() if extras.report else ())
    names = [f"{folder('scores', one.id)}/{MAPS}" for one in requests] if extras.save_maps else []
    missing = tuple(name for name in names if not has_maps(store, name, shape))
    return MapPlan(
        detector=requests[0].detector,
        taus=tuple(dict.fromkeys(taus)),
        aupros=tuple(dict.fromkeys(one.config.aupro for one in requests)),
        kept_as=missing,
        curves=extras.report,
    )


def _is_ready(_: Scoring) -> bool:
    """Be asked in every worker before work starts: opening the job was the question."""
    return True


def _save(
    store: Objects, request: _Request, found: Sequence[CategoryScores], *, report: bool
) -> Artifact:
    """Write tables and report, then the document, whose presence means that it is whole."""
    parent, data, config = request.guides, request.data, request.config
    place = folder("scores", request.id)
    document = {
        "config": as_document(config),
        "parents": {"cache": data.parent, "guides": parent.id},
        "fitted_on": parent.document["parents"]["cache"],
        "recipe": parent.document["config"]["recipe"],
        "backbone": parent.document["backbone"],
        **metrics_document(found, config),
    }
    store.replace(f"{place}/images.parquet", [as_parquet(images_table(found, data))])
    store.replace(f"{place}/categories.parquet", [as_parquet(categories_table(document))])
    if report:
        from pipeline.scoring.report_data import make_report

        here = request.detector.to(resolve_device(config.device))
        page = make_report(store, request.id, document, found, data, here, parent)
        store.replace(f"{place}/{REPORT}", [page.encode()])
    return save_artifact(store, "scores", request.id, document, {})
