"""What is written of scores: metrics as JSON, and a table of images and one of categories."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.artifacts import to_json
from pipeline.artifacts.documents import ScoresDocument, ScoresParents
from pipeline.artifacts.terms import Metrics
from pipeline.configs import ScoreConfig
from pipeline.detection.find import AnyDetector, fitted_on, recipe_of
from pipeline.inputs import CachedDataset
from pipeline.scoring.categories import CategoryScores
from pipeline.tables.frames import as_parquet
from spg_core.image_metrics import ImageMetrics
from spg_core.metrics import mean_metrics
from spg_core.pixel_metrics import PixelMetrics


def scores_document(
    identifier: str,
    detector: AnyDetector,
    data: CachedDataset,
    config: ScoreConfig,
    found: Sequence[CategoryScores],
) -> ScoresDocument:
    """Give the content of `metrics.json`: each category, their unweighted mean, and where from."""
    images, pixels = [one.image for one in found], [one.pixel for one in found]
    return ScoresDocument(
        id=identifier,
        config=config,
        parents=scores_parents(detector, data),
        fitted_on=fitted_on(detector),
        recipe=recipe_of(detector),
        backbone=detector.document.backbone,
        aupro=config.aupro,
        mean=_metrics(mean_metrics(images), mean_metrics(pixels)),
        categories={one.category: _metrics(one.image, one.pixel) for one in found},
    )


def scores_parents(detector: AnyDetector, data: CachedDataset) -> ScoresParents:
    """Give what scores are made from."""
    others = [one.parent for one in data.others]
    kind = detector.place.kind
    return ScoresParents(
        cache=data.parent,
        others=others,
        guides=detector.id if kind == "guides" else None,
        memory=detector.id if kind == "memories" else None,
        combination=detector.id if kind == "combinations" else None,
    )


def _metrics(image: ImageMetrics, pixel: PixelMetrics) -> Metrics:
    named = {f"image_{name}": value for name, value in vars(image).items()}
    return Metrics(**named, **{f"pixel_{name}": value for name, value in vars(pixel).items()})


def categories_file(document: ScoresDocument) -> dict[str, bytes]:
    """Give `categories.parquet`, which says what the document says."""
    return {"categories.parquet": as_parquet(categories_table(document))}


def images_table(found: Sequence[CategoryScores], data: CachedDataset) -> pa.Table:
    """Give one row an image, in manifest order: who it is, its label and its score."""
    scores = np.empty(data.cache.n_images, np.float32)
    for one in found:
        scores[one.rows] = one.scores
    kept = ["row", "image_id", "category", "defect", "label", "image_path"]
    return data.manifest.table.select(kept).append_column("score", pa.array(scores))


def categories_table(document: ScoresDocument) -> pa.Table:
    """Give one row a category: its metrics, null where undefined."""
    rows = [{"category": name, **to_json(one)} for name, one in document.categories.items()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, list[object]] = {name: [row.get(name) for row in rows] for name in names}
    text = {"category", "image_reason", "pixel_reason"}
    schema = pa.schema([(name, pa.string() if name in text else pa.float64()) for name in names])
    return pa.table(columns, schema=schema)
