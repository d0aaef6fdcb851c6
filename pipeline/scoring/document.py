"""What is written of scores: metrics as JSON, and a table of images and one of categories."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.configs import ScoreConfig
from pipeline.inputs import CachedDataset
from pipeline.scoring.categories import CategoryScores
from spg_core.image_metrics import ImageMetrics
from spg_core.metrics import mean_metrics
from spg_core.pixel_metrics import PixelMetrics


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
