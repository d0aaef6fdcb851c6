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
    with_sae = _fit_saes(opened, list(zip(rows, points, strict=True)))
    with_guides = _fit_guides(opened, with_sae)
    target = opened.target
    asked = [(name, point.score) for _, point, name in with_guides]
    made = score_group(opened.store, asked, target.dataset, key=target.cache.key)
    for (row, _, _), one in zip(with_guides, made, strict=True):
        scores = _found(one, row, "score")
        if scores is not None:
            row["scores"] = scores.id
            row |= scores.document.mean.values
    return rows


def _fit_saes(
    opened: OpenSweep, wanted: Sequence[tuple[Row, Point]]
) -> list[tuple[Row, Point, Artifact[SaeDocument]]]:
    """Give the points that have an SAE, with it; note in all rows how it went."""
    configs = [point.sae for _, point in wanted]
    saes = fit_saes(opened.store, opened.aux, configs, opened.memory_bytes)
    made = []
    for row, point in wanted:
        row["sae"] = name = sae_id(opened.aux, point.sae)
        sae = _found(saes[name], row, "fit-sae")
        if sae is not None:
            row |= vars(sae.document.quality)
            made.append((row, point, sae))
    return made


def _fit_guides(
    opened: OpenSweep, wanted: Sequence[tuple[Row, Point, Artifact[SaeDocument]]]
) -> list[tuple[Row, Point, str]]:
    """Give the points that have guides, with their id; note in all rows how it went."""
    fitted = fit_guide_group(opened.store, [(sae, point.guides) for _, point, sae in wanted])
    made = []
    for row, point, sae in wanted:
        row["guides"] = name = guides_id(sae.id, point.guides)
        guides = _found(fitted[name], row, "fit-guides")
        if guides is not None:
            row |= _sparsity(guides)
            made.append((row, point, name))
    return made


def _found(made: Artifact[D] | SpgError, row: Row, stage: str) -> Artifact[D] | None:
    """Give an artifact, or note in the row why there is none."""
    if isinstance(made, Artifact):
        return made
    row |= {"state": "failed", "failed_at": stage, "reason": str(made)}
    return None


def _sparsity(guides: Artifact[GuidesDocument]) -> Row:
    """Give non-zero counts and l1 norms of both guides, last and averaged, a column each.

    The average's share of its start goes first: where it is large, the counts are of no use.
    """
    row: Row = {"ema_start_share": guides.document.training.ema_start_share}
    for kind, counts in vars(guides.document.sparsity).items():
        for name, (normal, anomalous) in vars(counts).items():
            row |= {f"{kind}_{name}_normal": normal, f"{kind}_{name}_anomaly": anomalous}
    return row
