"""Score: turn cached tokens into anomaly maps, image scores and metrics, category by category."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

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
from pipeline.configs import ScoreConfig, as_document
from pipeline.detector import Detector, make_detector, require_same_tokens
from pipeline.device import resolve_device
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.progress import bar, say
from spg_core.anomaly_map import image_scores
from spg_core.errors import MetricError
from spg_core.image_metrics import ImageCurves, ImageMetrics, image_curves, image_metrics
from spg_core.metrics import mean_metrics
from spg_core.pixel_counts import count_normals, defect_pixels
from spg_core.pixel_metrics import (
    PixelCurves,
    PixelMetrics,
    metrics_from_counts,
    pixel_curves,
)

BLOCK_IMAGES = 16
MAPS = "maps.zarr"
REPORT = "report.html"


@dataclass(frozen=True)
class CategoryScores:
    """What one category gave: scores in row order, metrics and curves."""

    category: str
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    """`(n,)`."""
    scores_by_tau: NDArray[np.float32]
    """`(len(taus), n)`, for the tau curve."""
    image: ImageMetrics
    pixel: PixelMetrics
    image_curves: ImageCurves | None
    pixel_curves: PixelCurves | None


def score(
    store: Objects,
    guides: str,
    dataset: str,
    config: ScoreConfig,
    *,
    key: str | None = None,
    save_maps: bool = False,
    report: bool = False,
) -> Artifact:
    """Score a cached dataset with fitted guides, or give the scores the same request made before.

    Raises: NotInStore, ArtifactError, MetricError, StoreError.
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
    detector = make_detector(parent, config).to(resolve_device(config.device))
    taus = report_taus() if report else ()
    maps = None
    if save_maps:
        shape = (data.cache.n_images, data.spec.height, data.spec.width)
        maps = create_maps(store, f"{place}/{MAPS}", shape)
    found = []
    with bar("Scoring", data.cache.n_images) as advance:
        for category in data.manifest.categories:
            rows = data.manifest.rows_of(category)
            category_maps = compute_maps(detector, data, rows, advance)
            if maps is not None:
                maps[rows] = category_maps
            found.append(score_category(category, rows, category_maps, data, config, taus))
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
        from pipeline.score_report import make_report

        page = make_report(store, identifier, document, found, data, detector, parent)
        store.replace(f"{place}/{REPORT}", [page.encode()])
    return save_artifact(store, "scores", identifier, document, {})


def _is_done(store: Objects, identifier: str, *, save_maps: bool, report: bool) -> bool:
    place = folder("scores", identifier)
    return (
        is_complete(store, "scores", identifier)
        and (not report or store.size(f"{place}/{REPORT}") is not None)
        and (not save_maps or store.size(f"{place}/{MAPS}/zarr.json") is not None)
    )


def report_taus() -> tuple[float, ...]:
    """Give the pooling temperatures of Fig. 3, from 0.001 to 100."""
    return tuple(float(tau) for tau in np.logspace(-3, 2, 11))


@torch.inference_mode()
def compute_maps(
    detector: Detector, data: CachedDataset, rows: NDArray[np.int64], advance: Any = None
) -> NDArray[np.float32]:
    """Give the final maps `(n, height, width)` float32 in [0, 1] of some rows, block by block."""
    maps = np.empty((len(rows), detector.spec.height, detector.spec.width), np.float32)
    device = detector.guides.device
    for start in range(0, len(rows), BLOCK_IMAGES):
        block = rows[start : start + BLOCK_IMAGES]
        tokens = torch.from_numpy(data.cache.tokens(block)).to(device)
        # rounding can leave a sum of weights at 1 + 1e-7
        maps[start : start + len(block)] = detector.maps(tokens).clamp_(0, 1).cpu().numpy()
        if advance is not None:
            advance(len(block))
    return maps


def score_category(
    category: str,
    rows: NDArray[np.int64],
    maps: NDArray[np.float32],
    data: CachedDataset,
    config: ScoreConfig,
    taus: Sequence[float],
) -> CategoryScores:
    """Score the maps of one category; pixel metrics need every defective image's mask.

    Raises: MetricError for maps that are not finite.
    """
    labels = data.manifest.labels[rows]
    scores = pool(maps, config.tau)
    without_mask = _defective_without_mask(data, rows)
    if without_mask:
        reason = f"{without_mask} of {int(labels.sum())} defective images have no mask"
        pixel, curves = PixelMetrics(None, None, None, None, reason), None
    else:
        masks = data.cache.masks(rows)
        defects = defect_pixels(maps, masks)
        counts = count_normals(maps, masks, defects)
        pixel = metrics_from_counts(defects, counts, aupro=_aupro(config))
        curves = pixel_curves(defects, counts)
    return CategoryScores(
        category=category,
        rows=rows,
        scores=scores,
        scores_by_tau=np.stack([pool(maps, tau) for tau in taus]) if taus else scores[None, :0],
        image=image_metrics(scores, labels),
        pixel=pixel,
        image_curves=image_curves(scores, labels),
        pixel_curves=curves,
    )


def pool(maps: NDArray[np.float32], tau: float) -> NDArray[np.float32]:
    """Give image scores `(n,)` of maps `(n, height, width)`, block by block."""
    blocks = range(0, len(maps), BLOCK_IMAGES)
    parts = [image_scores(torch.from_numpy(maps[at : at + BLOCK_IMAGES]), tau) for at in blocks]
    pooled: NDArray[np.float32] = torch.cat(parts).numpy()
    return pooled


def _defective_without_mask(data: CachedDataset, rows: NDArray[np.int64]) -> int:
    table = data.manifest.select(rows)
    pairs = zip(table["label"].to_pylist(), table["mask_path"].to_pylist(), strict=True)
    return sum(1 for label, mask in pairs if label == 1 and mask is None)


def _aupro(config: ScoreConfig) -> Any:
    if config.aupro not in ("exact", "clip200"):
        raise MetricError(f"aupro is 'exact' or 'clip200', got {config.aupro!r}")
    return config.aupro


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
