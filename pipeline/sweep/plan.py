"""What a sweep will do: which points and SAEs, and steps, memory, time and disk they take."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cache.objects import Objects
from pipeline.artifacts import artifact_id, is_complete, settings
from pipeline.artifacts.terms import Row
from pipeline.backbones.spec import slug
from pipeline.configs import FitSaeConfig, SweepConfig
from pipeline.device import resolve_device
from pipeline.fitting.budget import memory_budget, plan_groups, require_fit, sae_bytes
from pipeline.fitting.guides import guides_id
from pipeline.fitting.sae import sae_id
from pipeline.fitting.tokens import guide_epoch_steps
from pipeline.progress import human_bytes, say
from pipeline.scoring.overlap import remark_shared
from pipeline.sweep.estimate import Estimate, estimate, total
from pipeline.sweep.grid import Point, read_grid
from pipeline.sweep.layers import OpenLayers, of_layer, open_layers, over_layers
from pipeline.sweep.points import OpenSweep
from pipeline.sweep.together import require_layers
from pipeline.text_table import text_table

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
    disk_bytes: int
    """About what comes on top of what is stored, checkpoints while fits run included."""
    cost: Estimate | None
    """Of the SAEs; None where there are none to fit, or workers do it."""


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep would do."""

    id: str
    points: list[Row]
    """The axes of each."""
    impossible: list[Row]
    """Combinations of values that do not go together."""
    planned: Planned
    free_bytes: int | None
    """Room in the store, None where it does not know it."""
    shared_images: int
    """Of the target, that the auxiliary dataset has, too."""

    def __repr__(self) -> str:
        rows = [[str(value) for value in point.values()] for point in self.points]
        lines = [self.id, text_table(list(self.points[0]), rows)] if rows else [self.id]
        lines += [f"impossible: {_axes(row)}: {row['reason']}" for row in self.impossible]
        free = "" if self.free_bytes is None else f", {human_bytes(self.free_bytes)} are free"
        disk = f"about {human_bytes(self.planned.disk_bytes)} of disk{free}"
        return "\n".join([*lines, *told(self.planned), disk])

    def to_json(self) -> dict[str, object]:
        """Give it as a JSON object."""
        cost = self.planned.cost
        return {
            "id": self.id,
            "points": self.points,
            "impossible": self.impossible,
            "saes": self.planned.n_saes,
            "saes_there": self.planned.n_saes_there,
            "guide_steps": self.planned.guide_steps,
            "disk_bytes": self.planned.disk_bytes,
            "free_bytes": self.free_bytes,
            "shared_images": self.shared_images,
            "sae_cost": None if cost is None else asdict(cost),
        }


def plan(store: Objects, config: SweepConfig) -> SweepPlan:
    """Say what `sweep` would do and what it would cost; nothing is written. Raises: as `sweep`."""
    grid = read_grid(config)
    opened = open_layers(store, config)
    require_layers(config, opened)
    n_shared = tell_shared(opened)
    points = over_layers(grid.points, opened)
    planned = plan_points(opened, points, config, measured=True)
    return SweepPlan(
        id=sweep_id(opened, config),
        points=[point.axes for point in points],
        impossible=[of_layer(row, layer) for layer in opened for row in grid.impossible],
        planned=planned,
        free_bytes=store.free_bytes(),
        shared_images=n_shared,
    )


def tell_shared(opened: OpenLayers) -> int:
    """Say, before hours of work, how many images to be scored are fitted on; give their number."""
    first = next(iter(opened.values()))  # other layers are of the same images
    return remark_shared(first.aux, first.target)


def sweep_id(opened: OpenLayers, config: SweepConfig) -> str:
    """Name a sweep by its caches and its grid; where it ran is no part of it."""
    keys: dict[str, object] = {
        "aux": [one.aux.cache.key for one in opened.values()],
        "target": [one.target.cache.key for one in opened.values()],
    }
    if not config.layer:
        keys = {which: found[0] for which, found in keys.items() if isinstance(found, list)}
    return artifact_id(
        f"{config.aux}-to-{config.target}-{slug(config.backbone)}",
        {**keys, "config": settings(config)},
    )


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
    n_guides, guide_steps = _guides_left(opened, points)
    disk += n_guides * 2 * _PICTURES_BYTES + guide_steps * _LINE_BYTES
    return Planned(
        n_points=len(points),
        n_layers=len(opened),
        n_saes=n_saes,
        n_saes_there=n_saes - n_pending,
        n_guides=n_guides,
        guide_steps=guide_steps,
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
    there = f"{planned.n_saes_there} of them there already"
    lines = [f"{planned.n_points} points{over}, {planned.n_saes} SAEs, {there}"]
    if planned.cost is not None:
        lines.append(planned.cost.text())
    if planned.n_guides:
        lines.append(f"{planned.n_guides} pairs of guides: {planned.guide_steps} steps")
    return lines


def _pending(opened: OpenSweep, saes: dict[str, FitSaeConfig]) -> dict[str, FitSaeConfig]:
    return {name: sae for name, sae in saes.items() if not is_complete(opened.store, "saes", name)}


def _guides_left(opened: OpenLayers, points: Sequence[Point]) -> tuple[int, int]:
    """Count the guides that are not there yet, and their steps."""
    left = {}
    for point in points:
        one = opened[point.layer]
        name = guides_id(sae_id(one.aux, point.sae), point.guides)
        if name not in left and not is_complete(one.store, "guides", name):
            left[name] = guide_epoch_steps(one.aux.cache, point.guides) * point.guides.epochs
    return len(left), sum(left.values())


def _sae_disk(config: FitSaeConfig, d_model: int) -> int:
    """Bytes of an SAE in the store: encoder, dictionary, which atoms fired, curves."""
    return config.width * (2 * d_model * _FLOAT_BYTES + 1) + _PICTURES_BYTES


def _state_bytes(config: FitSaeConfig, d_model: int) -> int:
    """Bytes of an SAE's checkpoint: two matrices, each with Adam's two averages."""
    return 6 * config.width * d_model * _FLOAT_BYTES


def _axes(row: Row) -> str:
    names = [name for name in row if name not in ("state", "failed_at", "reason")]
    return ", ".join(f"{name} {row[name]}" for name in names)
