"""Say aloud where image scores rank worse than chance, and which pooling the auxiliary set prefers.

The target's labels may not choose anything. The auxiliary images are labelled, and the guides were
fitted on them; a few of each category are scored again, by every pooling, where their tokens are
in the store.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.detection.detector import Detector
from pipeline.detection.find import AnyDetector, find_detector
from pipeline.detection.load import make_detector, open_fitted_on
from pipeline.detection.values import Rows, compute
from pipeline.inputs import CachedDataset
from pipeline.machine.device import resolve_device
from pipeline.scoring.blocks import cut_blocks
from pipeline.tables.metrics import percent
from pipeline.terminal.progress import say
from spg_core.errors import SpgError
from spg_core.image_metrics import image_metrics
from spg_core.pooling import Pooling

CHANCE = 0.5
_IMAGES = 16
"""Of a category and label."""
_NAMED = 5
_TRIED = (
    *(Pooling(tau) for tau in (0.0, 0.01, 0.1, 1.0, float("inf"))),
    *(Pooling(top=share) for share in (0.001, 0.01, 0.05, 0.1, 0.25)),
    Pooling(top=0.01, of="patches"),
)


def remark_chance(
    store: Objects, scores: Artifact[ScoresDocument], guides: str | AnyDetector
) -> None:
    """Say in one line which categories have an image AUROC below 0.5, if any, and what may help."""
    document = scores.document
    found = {name: one.image_auroc for name, one in document.categories.items()}
    below = {name: value for name, value in found.items() if value is not None and value < CHANCE}
    if not below:
        return
    named = [f"{name} {percent(value)} %" for name, value in list(below.items())[:_NAMED]]
    more = f" and {len(below) - _NAMED} more" if len(below) > _NAMED else ""
    mean = f"mean {percent(document.mean.image_auroc)} %"
    say(
        f"remark: image AUROC is below chance for {', '.join(named)}{more} ({mean}); "
        f"{_advice(store, scores, guides)}"
    )


def _advice(store: Objects, scores: Artifact[ScoresDocument], guides: str | AnyDetector) -> str:
    """Name the pooling that is best on the auxiliary images, or say why none can be named."""
    config = scores.document.config
    now = config.pooling
    try:
        fitted = find_detector(store, guides) if isinstance(guides, str) else guides
        detector = make_detector(fitted, config).to(resolve_device(config.device))
        data = open_fitted_on(store, fitted, detector)
        rows = few_of_each(data)
        known = _auroc_by_pooling(detector, data, rows, dict.fromkeys((now, *_TRIED)))
    except SpgError as error:
        return f"which pooling the auxiliary set prefers cannot be told: {error}"
    if not known:
        return f"no category of {data.dataset} has good and defective images to try a pooling on"
    best = max(known, key=lambda one: known[one])
    on = f"{len(rows)} images of {data.dataset}, which the guides were fitted on"
    if best == now:
        return f"no other pooling is better on {on}: {percent(known[now])} %"
    return f"on {on}, {best.option} is best: {percent(known[best])} %, this {percent(known[now])} %"


def few_of_each(data: CachedDataset) -> Rows:
    """Give rows `(n,)` of a dataset: up to 16 of each category and label, evenly spread."""
    labels, chosen = data.manifest.labels, []
    for category in data.manifest.categories:
        rows = data.manifest.rows_of(category)
        for label in (0, 1):
            found = rows[labels[rows] == label]
            chosen.append(
                found[np.linspace(0, len(found) - 1, min(_IMAGES, len(found)), dtype=int)]
            )
    return np.sort(np.concatenate(chosen))


def _auroc_by_pooling(
    detector: Detector, data: CachedDataset, rows: Rows, poolings: Iterable[Pooling]
) -> dict[Pooling, float]:
    """Give the mean image AUROC over categories by each pooling; empty where none has one."""
    scores: dict[Pooling, list[NDArray[np.float32]]] = {one: [] for one in poolings}
    for block in cut_blocks(rows):
        _, found_here = compute(detector, data, block, list(scores))
        for pooled, of_block in zip(scores.values(), found_here, strict=True):
            pooled.append(of_block)
    labels, members = data.manifest.labels[rows], data.manifest.select(rows)["category"].to_numpy()
    found = {}
    for one, pooled in scores.items():
        values = np.concatenate(pooled)
        parts = [members == category for category in data.manifest.categories]
        each = [image_metrics(values[part], labels[part]).auroc for part in parts]
        if defined := [value for value in each if value is not None]:
            found[one] = float(np.mean(defined))
    return found
