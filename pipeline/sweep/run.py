"""Run a sweep: plan it, train it here or on workers, and write its table and heatmaps."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.objects import Objects
from pipeline.artifacts import artifact_id, is_complete, save_artifact, settings
from pipeline.artifacts.documents import SweepDocument, SweepParents
from pipeline.artifacts.terms import Row
from pipeline.backbones.spec import slug
from pipeline.configs import ClusterConfig, FitSaeConfig, SweepConfig
from pipeline.device import resolve_device
from pipeline.drawing.canvas import draw_sheet
from pipeline.fitting.budget import memory_budget, plan_groups, require_fit, sae_bytes
from pipeline.fitting.sae import sae_id
from pipeline.frames import to_frame
from pipeline.metrics import METRICS, percent
from pipeline.progress import bar, console, say
from pipeline.sweep.estimate import estimate, total
from pipeline.sweep.grid import Point, read_grid
from pipeline.sweep.layers import OpenLayers, of_layer, open_layers, over_layers
from pipeline.sweep.points import OpenSweep, run_points
from pipeline.sweep.table import figures, sweep_table
from pipeline.sweep.together import require_layers, score_together
from pipeline.words import transfer_words
from pipeline.workers import open_workers
from spg_core.errors import FitError

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Sweep:
    """A finished sweep."""

    id: str
    path: str
    rows: list[Row]
    figures: list[str]
    """Names of the heatmaps, and of metrics by layer, in its folder."""

    def __repr__(self) -> str:
        done = [row for row in self.rows if row["state"] == "done"]
        lines = [f"{self.id}: {len(done)} of {len(self.rows)} points"]
        for metric in ("image_auroc", "pixel_aupro"):
            known = [(v, row) for row in done if isinstance(v := row.get(metric), float)]
            if known:
                value, best = max(known, key=lambda pair: pair[0])
                said = f"{METRICS[metric].label} {percent(value)} %"
                layer = f"layer {best['layer']}, " if "layer" in best else ""
                lines.append(f"  best {said}: {layer}C = {best['width']}, k = {best['k']}")
        return "\n".join([*lines, f"{self.path}/sweep.parquet"])

    def to_pandas(self) -> "DataFrame":
        """Give a row a point as a pandas DataFrame: its axes, quality, metrics."""
        return to_frame(self.rows)

    @property
    def failed(self) -> list[Row]:
        """The points that have no scores, with `failed_at` and `reason`."""
        return [row for row in self.rows if row["state"] == "failed"]


def sweep(store: Objects, config: SweepConfig, cluster: ClusterConfig | None = None) -> Sweep:
    """Fit and score a grid; what is there already is used, and what a kill left is gone on with.

    Raises: ConfigError, NotInStore, ArtifactError, FitError where no point came through.
    """
    grid = read_grid(config)
    opened = open_layers(store, config)
    require_layers(config, opened)
    points = over_layers(grid.points, opened)
    identifier = sweep_id(opened, config)
    where = cluster or ClusterConfig()
    _announce(opened, points, config, where)
    rows = _run(store, config, where, points, opened)
    if config.together:
        rows += score_together(opened, config, list(zip(points, rows, strict=True)))
    rows += [of_layer(row, layer) for layer in opened for row in grid.impossible]
    made = _save(store, identifier, config, opened, rows)
    for row in made.failed:
        axes = ", ".join(f"{name} {row[name]}" for name in ("layer", *grid.axes) if name in row)
        say(f"failed at {row['failed_at']}: {axes}: {row['reason']}")
    if len(made.failed) == len(rows):
        raise FitError(f"none of {len(rows)} points came through; the first: {rows[0]['reason']}")
    return made


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


def _announce(
    opened: OpenLayers, points: Sequence[Point], config: SweepConfig, where: ClusterConfig
) -> None:
    """Say what is to be done and what it will cost, before it starts. Raises: ConfigError."""
    wanted = {
        layer: {sae_id(one.aux, point.sae): point.sae for point in points if point.layer == layer}
        for layer, one in opened.items()
    }
    pending = {layer: _pending(opened[layer], saes) for layer, saes in wanted.items()}
    n_saes, n_pending = (sum(map(len, saes.values())) for saes in (wanted, pending))
    over = f" over {len(opened)} layers" if len(opened) > 1 else ""
    say(f"{len(points)} points{over}, {n_saes} SAEs, {n_saes - n_pending} of them there already")
    device = resolve_device(config.device) if n_pending and where.is_here else None
    costs = []
    for layer, saes in pending.items():
        cache, allowed = opened[layer].aux.cache, opened[layer].memory_bytes
        if allowed is not None:
            require_fit({n: sae_bytes(cache, c) for n, c in saes.items()}, allowed)
        if saes and device is not None:
            groups = plan_groups(cache, saes, allowed or memory_budget(device))
            costs.append(estimate(cache, groups, saes, device))
    if costs:
        say(total(costs).text())


def _pending(opened: OpenSweep, saes: dict[str, FitSaeConfig]) -> dict[str, FitSaeConfig]:
    return {name: sae for name, sae in saes.items() if not is_complete(opened.store, "saes", name)}


def open_sweep_job(store: Objects, config: SweepConfig) -> OpenLayers:
    """In a worker: open the caches."""
    console.quiet = True  # bars of several processes on one screen help nobody
    return open_layers(store, config)


def _run(
    store: Objects,
    config: SweepConfig,
    where: ClusterConfig,
    points: Sequence[Point],
    opened: OpenLayers,
) -> list[Row]:
    """Share the grid out; Dask gives a dead worker's part to another, which finds what is done."""
    with (
        open_workers(store, where, open_sweep_job, config, here=lambda: opened) as workers,
        ExitStack() as stack,
    ):
        parts = share_out(points, len(workers.addresses), opened)
        advance: Callable[[int], None] = lambda n: None  # noqa: E731 - the stages show bars here
        if not where.is_here:
            say(f"{len(workers.addresses)} workers, {len(parts)} parts of the grid")
            advance = stack.enter_context(bar("Points", len(points)))
        rows: dict[int, Row] = {}
        handles = (workers.submit(run_part, [(i, points[i]) for i in part]) for part in parts)
        for found in workers.results(handles):
            rows |= found
            advance(len(found))
    return [rows[i] for i in range(len(points))]


def run_part(opened: OpenLayers, part: Sequence[tuple[int, Point]]) -> dict[int, Row]:
    """Run points, layer by layer, and give their rows by their place in the grid."""
    found: dict[int, Row] = {}
    for layer, caches in opened.items():
        own = [(i, point) for i, point in part if point.layer == layer]
        rows = run_points(caches, [point for _, point in own]) if own else []
        found |= {i: row for (i, _), row in zip(own, rows, strict=True)}
    return found


def share_out(points: Sequence[Point], n_parts: int, opened: OpenLayers) -> list[list[int]]:
    """Split points into parts of about equal work; points of one SAE stay together.

    An SAE's work is taken as width times epochs, the encoder's product. Gives positions.
    """
    by_sae: dict[str, list[int]] = {}
    for i, point in enumerate(points):
        by_sae.setdefault(sae_id(opened[point.layer].aux, point.sae), []).append(i)
    work = {name: _work(points[found[0]].sae) for name, found in by_sae.items()}
    parts: list[list[int]] = [[] for _ in range(min(n_parts, len(by_sae)))]
    loads = [0] * len(parts)
    for name in sorted(by_sae, key=lambda name: -work[name]):
        lightest = loads.index(min(loads))
        parts[lightest] += by_sae[name]
        loads[lightest] += work[name]
    return [sorted(part) for part in parts]


def _work(config: FitSaeConfig) -> int:
    return config.width * config.epochs


def _save(
    store: Objects, identifier: str, config: SweepConfig, opened: OpenLayers, rows: list[Row]
) -> Sweep:
    """Write table, figures and document, in place of what an earlier run could not finish."""
    drawn = figures(rows, transfer_words(config.aux, config.target, config.backbone))
    pictures = {name: draw_sheet(strips) for name, strips in drawn.items()}
    first, *others = opened.values()
    document = SweepDocument(
        id=identifier,
        config=config,
        parents=SweepParents(
            aux=first.aux.parent,
            target=first.target.parent,
            others=tuple(one.parent for layer in others for one in (layer.aux, layer.target)),
        ),
        points=len(rows),
        failed=[row for row in rows if row["state"] == "failed"],
        figures=list(pictures),
    )
    made = save_artifact(store, document, sweep_table(rows), lambda _: pictures, renew=True)
    return Sweep(identifier, made.path, rows, list(pictures))
