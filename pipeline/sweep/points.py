"""Fit and score some points of a grid in this process, sharing what can be shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import Document, GuidesDocument, SaeDocument
from pipeline.artifacts.terms import Row
from pipeline.fitting.guides import fit_guide_group, guides_id
from pipeline.fitting.sae import fit_saes, sae_id
from pipeline.inputs import CachedDataset
from pipeline.scoring.score import score_group
from pipeline.sweep.grid import Point
from spg_core.errors import SpgError

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class OpenSweep:
    """What a process needs to work on points."""

    store: Objects
    aux: CachedDataset
    target: CachedDataset
    memory_bytes: int | None


def run_points(opened: OpenSweep, points: Sequence[Point]) -> list[Row]:
    """Bring points through all stages; give a row each, in order, those that failed too."""
    rows: list[Row] = [
        {**point.axes, "state": "done", "failed_at": None, "reason": None} for point in points
    ]
    saes = fit_saes(
        opened.store,
        opened.aux,
        [point.sae for point in points],
        opened.memory_bytes,
    )
    wanted: list[tuple[Row, Point, Artifact[SaeDocument]]] = []
    for row, point in zip(rows, points, strict=True):
        row["sae"] = name = sae_id(opened.aux, point.sae)
        sae = _found(saes[name], row, "fit-sae")
        if sae is not None:
            row |= vars(sae.document.quality)
            wanted.append((row, point, sae))
    fitted = fit_guide_group(opened.store, [(sae, point.guides) for _, point, sae in wanted])
    scored: list[tuple[Row, Point, str]] = []
    for row, point, sae in wanted:
        row["guides"] = name = guides_id(sae.id, point.guides)
        guides = _found(fitted[name], row, "fit-guides")
        if guides is not None:
            row |= _sparsity(guides)
            scored.append((row, point, name))
    made = score_group(
        opened.store,
        [(name, point.score) for _, point, name in scored],
        opened.target.dataset,
        key=opened.target.cache.key,
    )
    for (row, _, _), one in zip(scored, made, strict=True):
        scores = _found(one, row, "score")
        if scores is not None:
            row["scores"] = scores.id
            row |= scores.document.mean.values
    return rows


def _found(made: Artifact[D] | SpgError, row: Row, stage: str) -> Artifact[D] | None:
    """Give an artifact, or note in the row why there is none."""
    if isinstance(made, Artifact):
        return made
    row |= {"state": "failed", "failed_at": stage, "reason": str(made)}
    return None


def _sparsity(guides: Artifact[GuidesDocument]) -> Row:
    """Give non-zero counts and l1 norms of both guides, last and averaged, a column each."""
    row: Row = {}
    for kind, counts in vars(guides.document.sparsity).items():
        for name, (normal, anomalous) in vars(counts).items():
            row |= {f"{kind}_{name}_normal": normal, f"{kind}_{name}_anomaly": anomalous}
    return row
