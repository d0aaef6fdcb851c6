"""Run a sweep: plan it, train it here or on workers, and write its table and heatmaps."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.objects import Objects
from pipeline.artifacts import artifact_id, is_complete, save_artifact, settings
from pipeline.artifacts.documents import SweepDocument, SweepParents
from pipeline.artifacts.terms import Row
from pipeline.backbones.spec import require_same_tokens, slug
from pipeline.configs import ClusterConfig, FitSaeConfig, SweepConfig
from pipeline.device import resolve_device
from pipeline.fitting.budget import memory_budget, plan_groups, require_fit, sae_bytes
from pipeline.fitting.sae import sae_id
from pipeline.fitting.tokens import require_defects
from pipeline.frames import to_frame
from pipeline.inputs import open_dataset
from pipeline.metrics import METRICS, percent
from pipeline.progress import bar, console, say
from pipeline.sweep.estimate import estimate
from pipeline.sweep.grid import Point, read_grid
from pipeline.sweep.points import OpenSweep, run_points
from pipeline.sweep.table import heatmaps, sweep_table
from pipeline.work import open_workers
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
    """Names of the heatmaps in its folder."""

    def __repr__(self) -> str:
        done = [row for row in self.rows if row["state"] == "done"]
        lines = [f"{self.id}: {len(done)} of {len(self.rows)} points"]
        for metric in ("image_auroc", "pixel_aupro"):
            known = [(v, row) for row in done if isinstance(v := row.get(metric), float)]
            if known:
                value, best = max(known, key=lambda pair: pair[0])
                said = f"{METRICS[metric].label} {percent(value)} %"
                lines.append(f"  best {said}: C = {best['width']}, k = {best['k']}")
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
    opened = _open(store, config)
    identifier = sweep_id(opened, config)
    where = cluster or ClusterConfig()
    _announce(opened, grid.points, config, where)
    rows = _run(store, config, where, grid.points, opened) + grid.impossible
    made = _save(store, identifier, config, opened, rows)
    for row in made.failed:
        axes = ", ".join(f"{name} {row[name]}" for name in grid.axes)
        say(f"failed at {row['failed_at']}: {axes}: {row['reason']}")
    if len(made.failed) == len(rows):
        raise FitError(f"none of {len(rows)} points came through; the first: {rows[0]['reason']}")
    return made


def sweep_id(opened: OpenSweep, config: SweepConfig) -> str:
    """Name a sweep by its caches and its grid; where it ran is no part of it."""
    keys = {"aux": opened.aux.cache.key, "target": opened.target.cache.key}
    return artifact_id(
        f"{config.aux}-to-{config.target}-{slug(config.backbone)}",
        {**keys, "config": settings(config)},
    )


def _open(store: Objects, config: SweepConfig) -> OpenSweep:
    aux = open_dataset(store, config.aux, config.backbone, config.aux_key)
    target = open_dataset(store, config.target, config.backbone, config.target_key)
    require_same_tokens(
        aux.spec.covers(), target.spec.covers(), aux.cache.where, target.cache.where
    )
    require_defects(aux)
    memory = None if config.memory_gb is None else int(config.memory_gb * 1e9)
    return OpenSweep(store, aux, target, memory)


def _announce(
    opened: OpenSweep, points: Sequence[Point], config: SweepConfig, where: ClusterConfig
) -> None:
    """Say what is to be done and what it will cost, before it starts. Raises: ConfigError."""
    wanted = {sae_id(opened.aux, point.sae): point.sae for point in points}
    pending = {
        name: sae for name, sae in wanted.items() if not is_complete(opened.store, "saes", name)
    }
    n_there = sum(is_complete(opened.store, "saes", name) for name in wanted)
    say(f"{len(points)} points, {len(wanted)} SAEs, {n_there} of them there already")
    cache = opened.aux.cache
    if opened.memory_bytes is not None:
        require_fit({n: sae_bytes(cache, c) for n, c in pending.items()}, opened.memory_bytes)
    if not pending or not where.is_here:
        return
    device = resolve_device(config.device)
    groups = plan_groups(cache, pending, opened.memory_bytes or memory_budget(device))
    say(estimate(cache, groups, pending, device).text())


def open_sweep_job(store: Objects, config: SweepConfig) -> OpenSweep:
    """In a worker: open the caches."""
    console.quiet = True  # bars of several processes on one screen help nobody
    return _open(store, config)


def _run(
    store: Objects,
    config: SweepConfig,
    where: ClusterConfig,
    points: Sequence[Point],
    opened: OpenSweep,
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


def run_part(opened: OpenSweep, part: Sequence[tuple[int, Point]]) -> dict[int, Row]:
    """Run points and give their rows by their place in the grid."""
    rows = run_points(opened, [point for _, point in part])
    return {i: row for (i, _), row in zip(part, rows, strict=True)}


def share_out(points: Sequence[Point], n_parts: int, opened: OpenSweep) -> list[list[int]]:
    """Split points into parts of about equal work; points of one SAE stay together.

    An SAE's work is taken as width times epochs, the encoder's product. Gives positions.
    """
    by_sae: dict[str, list[int]] = {}
    for i, point in enumerate(points):
        by_sae.setdefault(sae_id(opened.aux, point.sae), []).append(i)
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
    store: Objects, identifier: str, config: SweepConfig, opened: OpenSweep, rows: list[Row]
) -> Sweep:
    """Write table, heatmaps and document, in place of what an earlier run could not finish."""
    figures = heatmaps(rows, identifier)
    document = SweepDocument(
        id=identifier,
        config=config,
        parents=SweepParents(aux=opened.aux.parent, target=opened.target.parent),
        points=len(rows),
        failed=[row for row in rows if row["state"] == "failed"],
        figures=list(figures),
    )
    made = save_artifact(store, document, sweep_table(rows), lambda _: figures, renew=True)
    return Sweep(identifier, made.path, rows, list(figures))
