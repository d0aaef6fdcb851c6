"""What is left to do of a sweep, and the steps, memory, time and disk that it takes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.artifacts import is_complete
from pipeline.configs import FitSaeConfig, SweepConfig
from pipeline.fitting.budget import memory_budget, plan_groups, require_fit, sae_bytes
from pipeline.fitting.guides import guides_id
from pipeline.fitting.sae import sae_id
from pipeline.fitting.tokens import guide_epoch_steps
from pipeline.machine.device import resolve_device
from pipeline.scoring.requests import scores_id_of
from pipeline.sweep.estimate import Estimate, estimate, total
from pipeline.sweep.grid import Point
from pipeline.sweep.layers import OpenLayers
from pipeline.sweep.points import OpenSweep
from pipeline.sweep.trials import guide_seconds, score_seconds
from pipeline.terminal.printable import counted
from pipeline.terminal.progress import human_seconds, say

_FLOAT_BYTES = 4
_LINE_BYTES = 100
"""Of a log, a step."""
_PICTURES_BYTES = 150_000
"""Curves of a fit, and the small files of scores."""


@dataclass(frozen=True)
class Planned:
    """What is to be done for some points."""

    n_points: int
    n_layers: int
    n_saes: int
    n_saes_there: int
    n_guides: int
    """Guides that are not there yet."""
    guide_steps: int
    n_scores: int
    """Scores that are not there yet."""
    guide_seconds: float | None
    """None where nothing was measured, as workers do it."""
    score_seconds: float | None
    disk_bytes: int
    """About what comes on top of what is stored, checkpoints while fits run included."""
    cost: Estimate | None
    """Of the SAEs; None where there are none to fit, or workers do it."""


def plan_points(
    opened: OpenLayers, points: Sequence[Point], config: SweepConfig, *, measured: bool
) -> Planned:
    """Count what is not there yet, and have a few steps `measured` on this machine.

    Raises: ConfigError where an SAE does not fit the memory that is allowed.
    """
    wanted = {
        layer: {sae_id(one.aux, point.sae): point.sae for point in points if point.layer == layer}
        for layer, one in opened.items()
    }
    pending = {layer: _pending(opened[layer], saes) for layer, saes in wanted.items()}
    costs, disk = [], 0
    for layer, saes in pending.items():
        cache, allowed = opened[layer].aux.cache, opened[layer].memory_bytes
        if allowed is not None:
            require_fit({name: sae_bytes(cache, one) for name, one in saes.items()}, allowed)
        disk += sum(_sae_disk(one, cache.d_model) for one in saes.values())
        if saes and measured:
            device = resolve_device(config.device)
            groups = plan_groups(cache, saes, allowed or memory_budget(device))
            costs.append(estimate(cache, groups, saes, device))
            biggest = max(sum(_state_bytes(saes[n], cache.d_model) for n in g) for g in groups)
            disk += biggest if layer == next(iter(pending)) else 0
    n_saes, n_pending = (sum(map(len, saes.values())) for saes in (wanted, pending))
    guides, scores = _guides_left(opened, points), _scores_left(opened, points)
    guide_steps = sum(
        guide_epoch_steps(opened[point.layer].aux.cache, point.guides) * point.guides.epochs
        for point in guides.values()
    )
    disk += len(guides) * 2 * _PICTURES_BYTES + guide_steps * _LINE_BYTES
    return Planned(
        n_points=len(points),
        n_layers=len(opened),
        n_saes=n_saes,
        n_saes_there=n_saes - n_pending,
        n_guides=len(guides),
        guide_steps=guide_steps,
        n_scores=len(scores),
        guide_seconds=_guide_seconds(opened, guides.values(), config) if measured else None,
        score_seconds=_score_seconds(opened, scores.values(), config) if measured else None,
        disk_bytes=disk + sum(one.n_steps for one in costs) * _LINE_BYTES,
        cost=total(costs) if costs else None,
    )


def announce(planned: Planned) -> None:
    """Say what is to be done and what it will cost, before it starts."""
    for line in told(planned):
        say(line)


def told(planned: Planned) -> list[str]:
    """Give the lines that say what is planned."""
    over = f" over {planned.n_layers} layers" if planned.n_layers > 1 else ""
    saes, there = counted(planned.n_saes, "SAE"), f"{planned.n_saes_there} of them there already"
    lines = [f"{counted(planned.n_points, 'point')}{over}, {saes}, {there}"]
    if planned.cost is not None:
        lines.append(planned.cost.text())
    if planned.n_guides:
        pairs = counted(planned.n_guides, "pair of guides", "pairs of guides")
        lines.append(f"{pairs}: {planned.guide_steps} steps{_about(planned.guide_seconds)}")
    if planned.n_scores:
        lines.append(f"{counted(planned.n_scores, 'score')}{_about(planned.score_seconds)}")
    return lines


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f", about {human_seconds(seconds)}"


def _pending(opened: OpenSweep, saes: dict[str, FitSaeConfig]) -> dict[str, FitSaeConfig]:
    return {name: sae for name, sae in saes.items() if not is_complete(opened.store, "saes", name)}


def _guides_left(opened: OpenLayers, points: Sequence[Point]) -> dict[str, Point]:
    """Give the guides that are not there yet, each with a point that takes it."""
    return _left(opened, "guides", {guides_of(opened, point): point for point in points})


def _scores_left(opened: OpenLayers, points: Sequence[Point]) -> dict[str, Point]:
    """Give the scores that are not there yet, each with its point."""
    named = {
        scores_id_of("guides", guides_of(opened, one), opened[one.layer].target, one.score): one
        for one in points
    }
    return _left(opened, "scores", named)


def _left(
    opened: OpenLayers, kind: Literal["guides", "scores"], named: dict[str, Point]
) -> dict[str, Point]:
    return {
        name: point
        for name, point in named.items()
        if not is_complete(opened[point.layer].store, kind, name)
    }


def guides_of(opened: OpenLayers, point: Point) -> str:
    """Name the guides of a point."""
    return guides_id(sae_id(opened[point.layer].aux, point.sae), point.guides)


def _guide_seconds(opened: OpenLayers, points: Collection[Point], config: SweepConfig) -> float:
    device = resolve_device(config.device)
    return sum(
        guide_seconds(
            one.aux,
            [(point.sae.width, point.guides) for point in points if point.layer == layer],
            device,
        )
        for layer, one in opened.items()
    )


def _score_seconds(opened: OpenLayers, points: Collection[Point], config: SweepConfig) -> float:
    device = resolve_device(config.device)
    return sum(
        score_seconds(
            one.store,
            one.target,
            [(guides_of(opened, point), point.score) for point in points if point.layer == layer],
            device,
        )
        for layer, one in opened.items()
    )


def _sae_disk(config: FitSaeConfig, d_model: int) -> int:
    """Bytes of an SAE in the store: encoder, dictionary, which atoms fired, curves."""
    return config.width * (2 * d_model * _FLOAT_BYTES + 1) + _PICTURES_BYTES


def _state_bytes(config: FitSaeConfig, d_model: int) -> int:
    """Bytes of an SAE's checkpoint: two matrices, each with Adam's two averages."""
    return 6 * config.width * d_model * _FLOAT_BYTES
