"""From `ReportData` to what the templates print: texts, charts and pictures, in page order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics import METRICS
from pipeline.report.charts import Chart, histogram, line_chart
from pipeline.report.data import CategoryCurves, GalleryItem, LinePlot, MetricRow, ReportData

LABELS = ("normal", "anomalous")
_PRO_LIMIT = 0.3


@dataclass(frozen=True, kw_only=True)
class CategoryView:
    """One category: its counts, charts and gallery."""

    name: str
    n_normal: int
    n_anomalous: int
    metrics: MetricRow
    charts: list[Chart]
    gallery: list[GalleryItem]


def metric_names(data: ReportData) -> dict[str, str]:
    """Give the columns of the metric tables: those that any row mentions."""
    rows = [data.mean, *data.categories.values(), *data.controls.values()]
    known = [name for name in METRICS if any(name in row.values for row in rows)]
    return {name: METRICS[name].label[0].upper() + METRICS[name].label[1:] for name in known}


def category_views(data: ReportData) -> list[CategoryView]:
    """Lay out each category in the order of the metrics, then any that only images name."""
    names = dict.fromkeys([*data.categories, *(image.category for image in data.images)])
    scores = [image.score for image in data.images]
    # One range for all categories, so that their histograms compare.
    score_range = min(scores, default=0.0), max(scores, default=1.0)
    return [_category_view(name, data, score_range) for name in names]


def _category_view(name: str, data: ReportData, score_range: tuple[float, float]) -> CategoryView:
    by_label = [
        np.array([i.score for i in data.images if i.category == name and i.label == label])
        for label in (0, 1)
    ]
    scores = dict(zip(LABELS, by_label, strict=True))
    charts = [
        histogram("Image scores", "image score", scores, score_range),
        *_rate_charts(data.curves.get(name, CategoryCurves())),
    ]
    return CategoryView(
        name=name,
        n_normal=len(by_label[0]),
        n_anomalous=len(by_label[1]),
        metrics=data.categories.get(name, MetricRow(values={})),
        charts=[chart for chart in charts if chart is not None],
        gallery=[item for item in data.gallery if item.image.category == name],
    )


def _rate_charts(curves: CategoryCurves) -> list[Chart | None]:
    false_alarms, unit = "false-positive rate", (0.0, 1.0)
    rocs = {"image": curves.image_roc, "pixel": curves.pixel_roc}
    pros = {"per-region overlap": curves.pro}
    up_to = f"PRO up to a false-positive rate of {_PRO_LIMIT}"
    return [
        line_chart("ROC", false_alarms, "true-positive rate", rocs, x_range=unit, y_range=unit),
        line_chart(
            up_to, false_alarms, "per-region overlap", pros, x_range=(0.0, _PRO_LIMIT), y_range=unit
        ),
    ]


def perplexity(shares: Mapping[str, float]) -> float:
    """Say over how many values shares spread: 1 where one has all, their number if all equal."""
    return math.exp(-sum(share * math.log(share) for share in shares.values() if share > 0))


def charts_of(plots: Sequence[LinePlot]) -> list[Chart]:
    """Draw the plots that have something to show."""
    drawn = [line_chart(p.title, p.x_label, p.y_label, p.lines, log_x=p.log_x) for p in plots]
    return [chart for chart in drawn if chart is not None]
