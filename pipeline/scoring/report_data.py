"""Gather what a report shows from scores, cache and guides, and render the page."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import CombinationDocument, GuidesDocument, ScoresDocument
from pipeline.detection.detector import Detector
from pipeline.detection.find import AnyDetector
from pipeline.inputs import CachedDataset
from pipeline.kinds import SAY
from pipeline.report.data import (
    CategoryCurves,
    ImageRow,
    Line,
    LinePlot,
    ReportData,
    metric_row,
)
from pipeline.report.render import render_report
from pipeline.scoring.blocks import report_taus
from pipeline.scoring.categories import CategoryScores
from pipeline.scoring.controls import control_rows
from pipeline.scoring.report_gallery import make_gallery
from pipeline.scoring.report_guides import atoms_of, sparsity_of, training_of
from pipeline.scoring.report_tiles import make_tiles
from pipeline.tables.metrics import METRICS
from pipeline.terminal.printable import counted
from pipeline.words import transfer_words
from spg_core.image_metrics import image_metrics
from spg_core.pooling import Pooling


def make_report(
    store: Objects,
    document: ScoresDocument,
    found: Sequence[CategoryScores],
    data: CachedDataset,
    detector: Detector,
    parent: AnyDetector,
) -> str:
    """Render the report of some scores, one HTML page; fits are shown of guides alone."""
    images = _images(found, data)
    guides = _guides(parent)
    return render_report(
        ReportData(
            title=transfer_words(document.fitted_on.dataset, data.dataset, document.backbone.name),
            run=_run_card(document, data, parent),
            mean=metric_row(document.mean),
            categories={name: metric_row(one) for name, one in document.categories.items()},
            images=images,
            controls=control_rows(store, document, guides) if guides else {},
            gallery=make_gallery(images, data, detector),
            tiles=make_tiles(images, data, detector),
            curves={one.category: _curves(one) for one in found},
            tau_curve=_tau_curve(found, data),
            sparsity=sparsity_of(guides) if guides else None,
            training=training_of(store, guides) if guides else [],
            atoms=atoms_of(store, guides, document.config) if guides else [],
        )
    )


def _guides(parent: AnyDetector) -> Artifact[GuidesDocument] | None:
    """Give guides that are the whole detector."""
    return None if parent.place.kind != "guides" else cast(Artifact[GuidesDocument], parent)


def _run_card(document: ScoresDocument, data: CachedDataset, parent: AnyDetector) -> dict[str, str]:
    spec, config, fitted = data.spec, document.config, document.fitted_on
    return {
        "Scores": document.id,
        "Target": f"{data.dataset}, {counted(data.cache.n_images, 'image')}, "
        f"cache {data.cache.key}",
        "Backbone": f"{data.backbone} ({spec.library} {spec.model}), {spec.height} x {spec.width} "
        f"px, {spec.grid} tokens of {spec.d_model}",
        SAY[parent.place.kind].capitalize(): f"{parent.id}, fitted on {fitted.dataset} "
        f"(cache {fitted.key})",
        **_parents(document, parent),
        "Map": f"{config.coefficients} coefficients, Gaussian sigma {config.sigma:g} px",
        "Image score": str(config.pooling),
        "AUPRO": "every threshold up to FPR 0.3, 8-connected regions"
        if document.aupro == "exact"
        else "200 thresholds (the released definition; depends on the scale of the scores)",
        "Versions": ", ".join(f"{k} {v}" for k, v in parent.document.versions.items()),
    }


def _parents(document: ScoresDocument, parent: AnyDetector) -> dict[str, str]:
    """Say what the detector was made from."""
    match parent.document:
        case GuidesDocument() as guides:
            return {
                "SAE": guides.parents.over,
                "Recipe": f"{document.recipe}, seed {guides.config.seed}",
            }
        case CombinationDocument() as combination:
            parts = [f"{one.id} (weight {one.weight:.2f})" for one in combination.parts]
            return {f"Parts, {combination.config.combine}": "; ".join(parts)}
    return {}


def _images(found: Sequence[CategoryScores], data: CachedDataset) -> list[ImageRow]:
    table = data.manifest.table
    defects, paths = table["defect"].to_pylist(), table["image_path"].to_pylist()
    labels = data.manifest.labels
    return [
        ImageRow(
            row=int(row),
            category=one.category,
            defect=str(defects[row]),
            label=int(labels[row]),
            score=float(value),
            image_path=str(paths[row]),
        )
        for one in found
        for row, value in zip(one.rows, one.scores, strict=True)
    ]


def _curves(one: CategoryScores) -> CategoryCurves:
    image, pixel = one.image_curves, one.pixel_curves
    return CategoryCurves(
        image_roc=Line(x=image.roc.x, y=image.roc.y) if image else None,
        pixel_roc=Line(x=pixel.roc.x, y=pixel.roc.y) if pixel else None,
        image_pr=Line(x=image.pr.x, y=image.pr.y) if image else None,
        pixel_pr=Line(x=pixel.pr.x, y=pixel.pr.y) if pixel else None,
        pro=Line(x=pixel.pro.x, y=pixel.pro.y) if pixel else None,
    )


def _tau_curve(found: Sequence[CategoryScores], data: CachedDataset) -> LinePlot | None:
    """Give mean image AUROC and AP against tau, over the categories that have both classes."""
    labels = data.manifest.labels
    defined = [one for one in found if one.image.auroc is not None]
    if not defined:
        return None
    aurocs, aps = [], []
    for tau in report_taus():
        each = [
            image_metrics(one.scores_by_pooling[Pooling(tau)], labels[one.rows]) for one in defined
        ]
        aurocs.append(float(np.mean([metrics.auroc for metrics in each])))
        aps.append(float(np.mean([metrics.ap for metrics in each])))
    return LinePlot(
        title="Image metrics against tau",
        x_label="tau (log scale)",
        y_label="mean over categories",
        lines={
            METRICS["image_auroc"].label: Line(x=report_taus(), y=aurocs),
            METRICS["image_ap"].label: Line(x=report_taus(), y=aps),
        },
        log_x=True,
    )
