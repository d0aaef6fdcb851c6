"""What a sweep would do: which points, what is left of them, and what that takes."""

from dataclasses import asdict, dataclass

from cache.objects import Objects
from pipeline.artifacts import artifact_id, settings
from pipeline.artifacts.terms import Row
from pipeline.backbones.spec import slug
from pipeline.configs import SweepConfig
from pipeline.scoring.overlap import remark_shared
from pipeline.sweep.grid import read_grid
from pipeline.sweep.layers import OpenLayers, of_layer, open_layers, over_layers
from pipeline.sweep.left import Planned, plan_points, told
from pipeline.sweep.together import require_layers
from pipeline.tables.text import text_table
from pipeline.terminal.progress import human_bytes


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
            "scores": self.planned.n_scores,
            "guide_seconds": self.planned.guide_seconds,
            "score_seconds": self.planned.score_seconds,
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


def _axes(row: Row) -> str:
    names = [name for name in row if name not in ("state", "failed_at", "reason")]
    return ", ".join(f"{name} {row[name]}" for name in names)
