"""Score: turn cached tokens into anomaly maps, image scores and metrics, category by category."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache.maps import create_maps
from cache.objects import Objects
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    folder,
    is_complete,
    load_artifact,
    save_artifact,
)
from pipeline.cluster import Here, Workers, open_workers
from pipeline.cluster_store import store_ticket
from pipeline.configs import ClusterConfig, ScoreConfig, as_document
from pipeline.device import resolve_device
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.progress import bar, say
from pipeline.scoring.blocks import (
    CategoryScores,
    PendingCategory,
    ScoreJob,
    Scoring,
    finish_category,
    open_score_job,
    report_taus,
    submit_category,
)
from pipeline.scoring.detector import Detector, make_detector, require_same_tokens
from spg_core.image_metrics import ImageMetrics
from spg_core.metrics import mean_metrics
from spg_core.pixel_metrics import PixelMetrics

MAPS = "maps.zarr"
REPORT = "report.html"


def score(
    store: Objects,
    guides: str,
    dataset: str,
    config: ScoreConfig,
    *,
    key: str | None = None,
    save_maps: bool = False,
    report: bool = False,
    cluster: ClusterConfig | None = None,
) -> Artifact:
    """Score a cached dataset with fitted guides, or give the scores the same request made before.

    What comes out does not depend on `cluster`, to the last bit on like processors.

    Raises: NotInStore, ArtifactError, MetricError, StoreError, ClusterError.
    """
    parent = load_artifact(store, "guides", guides)
    data = open_dataset(store, dataset, parent.document["backbone"]["name"], key)
    require_same_tokens(
        parent.document["backbone"]["covers"],
        data.spec.covers(),
        f"guides {parent.id}",
        data.cache.where,
    )
    settings = {name: value for name, value in as_document(config).items() if name != "device"}
    identifier = artifact_id(
        f"{dataset}-from-{parent.id.rpartition('-')[0]}",
        {"guides": parent.id, "cache": data.cache.key, "config": settings},
    )
    place = folder("scores", identifier)
    if _is_done(store, identifier, save_maps=save_maps, report=report):
        say(f"scores {identifier} are there already")
        return load_artifact(store, "scores", identifier)
    store.check_writable()
    if data.cache.key == parent.document["parents"]["cache"]["key"]:
        say(
            f"remark: the guides were fitted on {dataset}; these numbers say nothing about "
            "products that were not seen"
        )
    detector = make_detector(parent, config)
    taus = report_taus() if report else ()
    maps_name = f"{place}/{MAPS}" if save_maps else None
    found = _score_all(store, data, detector, config, taus, maps_name, cluster or ClusterConfig())
    document = {
        "config": as_document(config),
        "parents": {"cache": data.parent, "guides": parent.id},
        "fitted_on": parent.document["parents"]["cache"],
        "recipe": parent.document["config"]["recipe"],
        "backbone": parent.document["backbone"],
        **metrics_document(found, config),
    }
    store.replace(f"{place}/images.parquet", [_parquet(images_table(found, data))])
    store.replace(f"{place}/categories.parquet", [_parquet(categories_table(document))])
    if report:
        from pipeline.scoring.report_data import make_report

        here = detector.to(resolve_device(config.device))
        page = make_report(store, identifier, document, found, data, here, parent)
        store.replace(f"{place}/{REPORT}", [page.encode()])
    return save_artifact(store, "scores", identifier, document, {})


def _score_all(
    store: Objects,
    data: CachedDataset,
    detector: Detector,
    config: ScoreConfig,
    taus: tuple[float, ...],
    maps_name: str | None,
    cluster: ClusterConfig,
) -> list[CategoryScores]:
    """Score every category here or by workers, a few categories under way at a time."""
    kept_maps = None
    if maps_name is not None:
        shape = (data.cache.n_images, data.spec.height, data.spec.width)
        kept_maps = create_maps(store, maps_name, shape)
    if cluster.is_here:
        here = Scoring(data, detector.to(resolve_device(config.device)), config, taus, kept_maps)
        return _categories(Here(here), data, config)
    with store_ticket(store) as ticket:
        job = ScoreJob(
            ticket, data.dataset, data.backbone, data.cache.key, detector, config, taus, maps_name
        )
        with open_workers(cluster, open_score_job, job) as workers:
            workers.ask_all(_is_ready)
            return _categories(workers, data, config)


def _categories(workers: Workers, data: CachedDataset, config: ScoreConfig) -> list[CategoryScores]:
    found: list[CategoryScores] = []
    under_way: deque[PendingCategory] = deque()
    with bar("Scoring", data.cache.n_images) as advance:
        for category in data.manifest.categories:
            rows = data.manifest.rows_of(category)
            under_way.append(submit_category(workers, data, category, rows, advance))
            if len(under_way) > workers.in_flight:
                found.append(finish_category(workers, data, config, under_way.popleft()))
        found += [finish_category(workers, data, config, pending) for pending in under_way]
    return found


def _is_ready(_: Scoring) -> bool:
    """Be asked in every worker before work starts: opening the job was the question."""
    return True


def _is_done(store: Objects, identifier: str, *, save_maps: bool, report: bool) -> bool:
    place = folder("scores", identifier)
    return (
        is_complete(store, "scores", identifier)
        and (not report or store.size(f"{place}/{REPORT}") is not None)
        and (not save_maps or store.size(f"{place}/{MAPS}/zarr.json") is not None)
    )


def metrics_document(found: Sequence[CategoryScores], config: ScoreConfig) -> dict[str, Any]:
    """Give the content of `metrics.json`: each category, their unweighted mean, the AUPRO used."""
    return {
        "aupro": config.aupro,
        "mean": _metrics(
            mean_metrics([one.image for one in found]), mean_metrics([one.pixel for one in found])
        ),
        "categories": {one.category: _metrics(one.image, one.pixel) for one in found},
    }


def _metrics(image: ImageMetrics, pixel: PixelMetrics) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for level, metrics in (("image", image), ("pixel", pixel)):
        values |= {
            f"{level}_{name}": value for name, value in asdict(metrics).items() if name != "reason"
        }
        if metrics.reason is not None:
            values[f"{level}_reason"] = metrics.reason
    return values


def images_table(found: Sequence[CategoryScores], data: CachedDataset) -> pa.Table:
    """Give one row an image, in manifest order: who it is, its label and its score."""
    scores = np.empty(data.cache.n_images, np.float32)
    for one in found:
        scores[one.rows] = one.scores
    kept = ["row", "image_id", "category", "defect", "label", "image_path"]
    return data.manifest.table.select(kept).append_column("score", pa.array(scores))


def categories_table(document: dict[str, Any]) -> pa.Table:
    """Give one row a category: its metrics, null where undefined."""
    rows = [{"category": name, **values} for name, values in document["categories"].items()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, Iterator[Any] | list[Any]] = {
        name: [row.get(name) for row in rows] for name in names
    }
    text = {"category", "image_reason", "pixel_reason"}
    schema = pa.schema([(name, pa.string() if name in text else pa.float64()) for name in names])
    return pa.table(columns, schema=schema)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())
