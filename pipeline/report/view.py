"""From `ReportData` to what the templates print: texts, charts and pictures, in page order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.metrics import METRICS
from pipeline.report.charts import Chart, histogram, line_chart
from pipeline.report.data import (
    Atom,
    AtomPatch,
    CategoryCurves,
    GalleryItem,
    Line,
    MetricRow,
    ReportData,
)
from pipeline.report.pictures import (
    Picture,
    heatmap_picture,
    mask_picture,
    outline_picture,
    thumbnail_picture,
)

LABELS = ("normal", "anomalous")
_PRO_LIMIT = 0.3


@dataclass(frozen=True, kw_only=True)
class Card:
    """One gallery image and its pictures."""

    item: GalleryItem
    label: str
    thumbnail: Picture | None
    mask: Picture | None
    outline: Picture | None
    heatmap: Picture
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class CategoryView:
    """One category: its counts, charts and gallery."""

    name: str
    n_normal: int
    n_anomalous: int
    metrics: MetricRow
    charts: list[Chart]
    cards: list[Card]


@dataclass(frozen=True, kw_only=True)
class PatchView:
    """One top patch of an atom."""

    patch: AtomPatch
    thumbnail: Picture | None
    heatmap: Picture
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How an atom's activation divides over the values of one column."""

    title: str
    shares: list[tuple[str, float]]
    effective: float
    """Perplexity: 1 where one value takes all, their number where all are equal."""


@dataclass(frozen=True, kw_only=True)
class AtomView:
    """One atom with its patches."""

    atom: Atom
    top: float
    patches: list[PatchView]
    spreads: list[Spread]


def metric_names(data: ReportData) -> dict[str, str]:
    """Give the columns of the metric tables: those that any row mentions."""
    rows = [data.mean, *data.categories.values(), *data.controls.values()]
    known = [name for name in METRICS if any(name in row.values for row in rows)]
    return {name: METRICS[name].label[0].upper() + METRICS[name].label[1:] for name in known}


def category_views(data: ReportData) -> list[CategoryView]:
    """Lay out each category in the order of the metrics, then any that only images name."""
    names = dict.fromkeys([*data.categories, *(image.category for image in data.images)])
    return [_category_view(name, data) for name in names]


def _category_view(name: str, data: ReportData) -> CategoryView:
    by_label = [
        np.array([i.score for i in data.images if i.category == name and i.label == label])
        for label in (0, 1)
    ]
    scores = dict(zip(LABELS, by_label, strict=True))
    # One range for all categories, so that their histograms compare.
    score_range = _score_range(data)
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
        cards=[_card(i, data.scale_top) for i in data.gallery if i.image.category == name],
    )


def _score_range(data: ReportData) -> tuple[float, float]:
    scores = [image.score for image in data.images]
    return min(scores, default=0.0), max(scores, default=1.0)


def _rate_charts(curves: CategoryCurves) -> list[Chart | None]:
    rocs = {"image": curves.image_roc, "pixel": curves.pixel_roc}
    known = {name: curve for name, curve in rocs.items() if curve is not None}
    unit = (0.0, 1.0)
    roc = line_chart(
        "ROC", "false-positive rate", "true-positive rate", known, x_range=unit, y_range=unit
    )
    if curves.pro is None:
        return [roc]
    pro = line_chart(
        f"PRO up to a false-positive rate of {_PRO_LIMIT}", "false-positive rate",
        "per-region overlap", {"per-region overlap": _up_to(curves.pro, _PRO_LIMIT)},
        x_range=(0.0, _PRO_LIMIT), y_range=unit,
    )  # fmt: skip
    return [roc, pro]


def _up_to(curve: Line, limit: float) -> Line:
    """Cut a curve of ascending x at `limit`, with an interpolated end point."""
    x, y = np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64)
    if not (x > limit).any():
        return curve
    kept = x <= limit
    return Line(x=np.append(x[kept], limit), y=np.append(y[kept], np.interp(limit, x, y)))


def _card(item: GalleryItem, top: float) -> Card:
    heatmap = heatmap_picture(item.anomaly_map, top)
    thumbnail = (
        None
        if item.thumbnail is None
        else thumbnail_picture(item.thumbnail, f"image {item.image.row}")
    )
    marked = item.mask is not None and bool(item.mask.any())
    size = thumbnail or heatmap
    return Card(
        item=item,
        label=LABELS[item.image.label],
        thumbnail=thumbnail,
        mask=mask_picture(item.mask) if item.mask is not None and marked else None,
        outline=outline_picture(item.mask) if item.mask is not None and marked else None,
        heatmap=heatmap,
        width=size.width,
        height=size.height,
    )


def atom_view(atom: Atom) -> AtomView:
    """Draw an atom's patches on one scale: from 0 to the atom's strongest activation shown."""
    top = max((float(patch.heatmap.max()) for patch in atom.patches), default=0.0) or 1.0
    spreads = {"categories": atom.category_spread, "defects": atom.defect_spread}
    return AtomView(
        atom=atom,
        top=top,
        patches=[_patch_view(patch, top) for patch in atom.patches],
        spreads=[_spread(title, shares) for title, shares in spreads.items() if shares],
    )


def _patch_view(patch: AtomPatch, top: float) -> PatchView:
    heatmap = heatmap_picture(patch.heatmap, top)
    thumbnail = (
        None if patch.thumbnail is None else thumbnail_picture(patch.thumbnail, patch.image_path)
    )
    size = thumbnail or heatmap
    return PatchView(
        patch=patch, thumbnail=thumbnail, heatmap=heatmap, width=size.width, height=size.height
    )


def _spread(title: str, shares: Mapping[str, float]) -> Spread:
    entropy = -sum(share * math.log(share) for share in shares.values() if share > 0)
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return Spread(title=title, shares=ordered, effective=math.exp(entropy))


def tau_chart(data: ReportData) -> Chart | None:
    """Draw the mean image metrics over tau, or None where the run has no tau sweep."""
    if data.tau_curve is None:
        return None
    curve = data.tau_curve
    return line_chart(
        "Image metrics against tau",
        "tau (log scale)",
        "mean over categories",
        {
            METRICS["image_auroc"].label: Line(x=curve.tau, y=curve.image_auroc),
            METRICS["image_ap"].label: Line(x=curve.tau, y=curve.image_ap),
        },
        log_x=True,
    )


def training_charts(data: ReportData) -> list[Chart]:
    """Draw the training plots that have something to show."""
    charts = [line_chart(p.title, p.x_label, p.y_label, p.lines) for p in data.training]
    return [chart for chart in charts if chart is not None]
