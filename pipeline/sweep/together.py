"""Several layers together: what the maps of fitted points come to when they are averaged."""

from collections.abc import Sequence
from itertools import combinations

from pipeline.artifacts.terms import Cell, Row
from pipeline.configs import CombineConfig, SweepConfig
from pipeline.detection.combine import combine
from pipeline.scoring.score import score_group
from pipeline.sweep.grid import Point
from pipeline.sweep.layers import OpenLayers
from spg_core.errors import ArtifactError, OptionsDisagree, SpgError

Fitted = tuple[Point, Row]
"""A point, and its row once it is brought through."""


def require_layers(config: SweepConfig, opened: OpenLayers) -> None:
    """Refuse to put one layer together. Raises: OptionsDisagree."""
    if config.together and len(opened) < 2:
        raise OptionsDisagree("--together is for several layers; name them with --layer")


def score_together(opened: OpenLayers, config: SweepConfig, fitted: Sequence[Fitted]) -> list[Row]:
    """Give a row for each set of layers and each configuration: their mean map, scored.

    All are scored in one pass over the target's tokens of these layers, in this process.
    """
    alike: dict[tuple[Cell, ...], list[Fitted]] = {}
    for point, row in fitted:
        others = tuple(value for name, value in point.axes.items() if name != "layer")
        alike.setdefault(others, []).append((point, row))
    sets = [chosen for members in alike.values() for chosen in _sets(config, members)]
    rows = [_begun(chosen) for chosen in sets]
    asked = []
    for row, chosen in zip(rows, sets, strict=True):
        try:
            asked.append((row, _detector(opened, row, chosen), chosen[0][0].score))
        except SpgError as error:
            row |= {"state": "failed", "failed_at": "combine", "reason": str(error)}
    target = next(iter(opened.values())).target
    store = next(iter(opened.values())).store
    wanted = [(detector, score) for _, detector, score in asked]
    made = score_group(store, wanted, target.dataset, key=target.cache.key)
    for (row, _, _), one in zip(asked, made, strict=True):
        if isinstance(one, SpgError):
            row |= {"state": "failed", "failed_at": "score", "reason": str(one)}
        else:
            row |= {"scores": one.id, **one.document.mean.values}
    return rows


def _sets(config: SweepConfig, members: Sequence[Fitted]) -> list[tuple[Fitted, ...]]:
    """Choose pairs, all, or both; of two layers these are the same."""
    found: list[tuple[Fitted, ...]] = []
    if "pairs" in config.together:
        found += combinations(members, 2)
    if "all" in config.together and tuple(members) not in found:
        found.append(tuple(members))
    return found


def _begun(chosen: Sequence[Fitted]) -> Row:
    layers = "+".join(str(point.axes["layer"]) for point, _ in chosen)
    axes = chosen[0][0].axes | {"layer": layers}
    return {**axes, "state": "done", "failed_at": None, "reason": None}


def _detector(opened: OpenLayers, row: Row, chosen: Sequence[Fitted]) -> str:
    """Combine the guides of some points; give the id. Raises: SpgError."""
    point = chosen[0][0]
    for one, of_one in chosen:
        if of_one["state"] != "done":
            raise ArtifactError(f"layer {one.layer} failed at {of_one['failed_at']}")
    how = CombineConfig(coefficients=point.score.coefficients, device=point.score.device)
    store = opened[point.layer].store
    made = combine(store, [str(of_one["guides"]) for _, of_one in chosen], how, direct=False)
    row["combination"] = made.id
    return made.id
