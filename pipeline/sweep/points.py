"""Fit and score some points of a grid in this process, sharing what can be shared."""

from collections.abc import Callable, Mapping, Sequence
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
from pipeline.tracking import Kind
from spg_core.errors import SpgError

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class OpenSweep:
    """What a process needs to work on points."""

    store: Objects
    aux: CachedDataset
    target: CachedDataset
    memory_bytes: int | None
    track: Kind | None = None


def run_points(
    opened: OpenSweep,
    points: Sequence[Point],
    tell: Callable[[list[Row]], None] = lambda _: None,
) -> list[Row]:
    """Bring points through all stages; give a row each, in order, those that failed too.

    `tell` is given the rows whenever some have got further: `state` is waiting, sae (fitted),
    guides (fitted), done or failed.
    """
    rows = [begun(point) for point in points]
    with_sae = _fit_saes(opened, list(zip(rows, points, strict=True)), lambda: tell(rows))
    with_guides = _fit_guides(opened, with_sae, lambda: tell(rows))
    target = opened.target
    asked = [(name, point.score) for _, point, name in with_guides]
    made = score_group(opened.store, asked, target.dataset, key=target.cache.key)
    for (row, _, _), one in zip(with_guides, made, strict=True):
        scores = _found(one, row, "score")
        if scores is not None:
            row |= {"state": "done", "scores": scores.id, **scores.document.mean.values}
    tell(rows)
    return rows


def begun(point: Point) -> Row:
    """Give the row of a point of which nothing is done yet."""
    return {**point.axes, "state": "waiting", "failed_at": None, "reason": None}


def _fit_saes(
    opened: OpenSweep, wanted: Sequence[tuple[Row, Point]], tell: Callable[[], None]
) -> list[tuple[Row, Point, Artifact[SaeDocument]]]:
    """Give the points that have an SAE, with it; note in all rows how it went."""
    names = [sae_id(opened.aux, point.sae) for _, point in wanted]
    for (row, _), name in zip(wanted, names, strict=True):
        row["sae"] = name

    def note(made: Mapping[str, Artifact[SaeDocument] | SpgError]) -> None:
        for (row, _), name in zip(wanted, names, strict=True):
            if name in made and (sae := _found(made[name], row, "fit-sae")) is not None:
                row |= {"state": "sae", **vars(sae.document.quality)}
        tell()

    configs = [point.sae for _, point in wanted]
    saes = fit_saes(opened.store, opened.aux, configs, opened.memory_bytes, note, opened.track)
    return [
        (row, point, found)
        for (row, point), name in zip(wanted, names, strict=True)
        if isinstance(found := saes[name], Artifact)
    ]


def _fit_guides(
    opened: OpenSweep,
    wanted: Sequence[tuple[Row, Point, Artifact[SaeDocument]]],
    tell: Callable[[], None],
) -> list[tuple[Row, Point, str]]:
    """Give the points that have guides, with their id; note in all rows how it went."""
    names = [guides_id(sae.id, point.guides) for _, point, sae in wanted]
    for (row, _, _), name in zip(wanted, names, strict=True):
        row["guides"] = name

    def note(made: Mapping[str, Artifact[GuidesDocument] | SpgError]) -> None:
        for (row, _, _), name in zip(wanted, names, strict=True):
            if name in made and (guides := _found(made[name], row, "fit-guides")) is not None:
                row |= {"state": "guides", **_sparsity(guides)}
        tell()

    asked = [(sae, point.guides) for _, point, sae in wanted]
    fitted = fit_guide_group(opened.store, asked, note, opened.track)
    return [
        (row, point, name)
        for (row, point, _), name in zip(wanted, names, strict=True)
        if isinstance(fitted[name], Artifact)
    ]


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
