"""From `ReportData` to what the templates print: texts, charts and pictures, in page order."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report.charts import Chart, histogram, line_chart
from pipeline.report.data import (
    CategoryCurves,
    GalleryItem,
    Line,
    LinePlot,
    MetricRow,
    ReportData,
    Tile,
)
from pipeline.tables.metrics import METRICS, percent

LABELS = ("normal", "anomalous")
_MAIN = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
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


def headline(mean: MetricRow) -> dict[str, list[str]]:
    """Give the metrics that exist of the mean by the size they are shown in: `main`, `minor`."""
    known = [name for name in METRICS if mean.values.get(name) is not None]
    return {
        "main": [name for name in known if name in _MAIN],
        "minor": [name for name in known if name not in _MAIN],
    }


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
        *_rate_charts(
            data.curves.get(name, CategoryCurves()),
            data.categories.get(name, MetricRow(values={})),
        ),
    ]
    return CategoryView(
        name=name,
        n_normal=len(by_label[0]),
        n_anomalous=len(by_label[1]),
        metrics=data.categories.get(name, MetricRow(values={})),
        charts=[chart for chart in charts if chart is not None],
        gallery=[item for item in data.gallery if item.image.category == name],
    )


def _rate_charts(curves: CategoryCurves, metrics: MetricRow) -> list[Chart | None]:
    """Draw ROC, precision against recall, and PRO; each line says the area below it."""
    false_alarms, unit = "false-positive rate", (0.0, 1.0)

    def named(image: Line | None, pixel: Line | None) -> dict[str, Line | None]:
        return {_with_area("image", image): image, _with_area("pixel", pixel): pixel}

    rocs = named(curves.image_roc, curves.pixel_roc)
    prs = named(curves.image_pr, curves.pixel_pr)
    pros = {_pro_name(curves.pro, metrics.values.get("pixel_aupro")): curves.pro}
    up_to = f"PRO up to a false-positive rate of {_PRO_LIMIT}"
    return [
        line_chart("ROC", false_alarms, "true-positive rate", rocs, x_range=unit, y_range=unit),
        line_chart("Precision and recall", "recall", "precision", prs, x_range=unit, y_range=unit),
        line_chart(
            up_to, false_alarms, "per-region overlap", pros, x_range=(0.0, _PRO_LIMIT), y_range=unit
        ),
    ]


def area_below(line: Line, end: float = 1.0) -> float:
    """Give the area below a line of rising x up to `end`, as a share of `end`."""
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    inside = x <= end
    x, y = np.append(x[inside], end), np.append(y[inside], np.interp(end, x, y))
    return float(np.trapezoid(y, x)) / end


def _with_area(name: str, line: Line | None) -> str:
    return name if line is None else f"{name}, area {percent(area_below(line))} %"


def _pro_name(line: Line | None, stated: float | None) -> str:
    """Say the area, and what the metric is where it is defined otherwise."""
    if line is None:
        return "per-region overlap"
    area = area_below(line, _PRO_LIMIT)
    if stated is None or abs(area - stated) < 1e-3:
        return f"area {percent(area)} %"
    return f"area {percent(area)} %; AUPRO as released, by 200 thresholds: {percent(stated)} %"


def perplexity(shares: Mapping[str, float]) -> float:
    """Say over how many values shares spread: 1 where one has all, their number if all equal."""
    return math.exp(-sum(share * math.log(share) for share in shares.values() if share > 0))


def tiles_json(tiles: Mapping[int, Tile]) -> str:
    """Give tiles as JSON of numbers and base64 alone, so that it cannot end the element it is in.

    ROW -> [photo or null, heat].
    """
    held = {
        str(row): [None if one.photo is None else _base64(one.photo), _base64(one.heat)]
        for row, one in tiles.items()
    }
    return json.dumps(held, separators=(",", ":"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def charts_of(plots: Sequence[LinePlot]) -> list[Chart]:
    """Draw the plots that have something to show."""
    drawn = [line_chart(p.title, p.x_label, p.y_label, p.lines, log_x=p.log_x) for p in plots]
    return [chart for chart in drawn if chart is not None]
