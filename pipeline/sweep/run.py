"""Run a sweep: plan it, train it here or on workers, and write its table and heatmaps."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.objects import Objects
from pipeline.artifacts import give, save_artifact
from pipeline.artifacts.documents import SweepDocument, SweepParents
from pipeline.artifacts.terms import Row
from pipeline.configs import ClusterConfig, FitSaeConfig, SweepConfig
from pipeline.drawing.canvas import draw_sheet
from pipeline.fitting.sae import sae_id
from pipeline.sweep.board import CSV, Board, table_as_csv
from pipeline.sweep.grid import Point, read_grid
from pipeline.sweep.layers import OpenLayers, of_layer, open_layers, over_layers
from pipeline.sweep.left import announce, plan_points
from pipeline.sweep.plan import sweep_id, tell_shared
from pipeline.sweep.points import begun, run_points
from pipeline.sweep.remarks import remark_points
from pipeline.sweep.table import figures, sweep_table
from pipeline.sweep.together import require_layers, score_together
from pipeline.tables.frames import to_frame
from pipeline.tables.metrics import METRICS, percent
from pipeline.terminal.progress import bar, console, say
from pipeline.tracking import Kind, require_tracker
from pipeline.words import transfer_words
from pipeline.workers.open import open_workers
from spg_core.errors import FitError

if TYPE_CHECKING:
    from pandas import DataFrame

Tell = Callable[[dict[int, Row]], None]
"""Is given rows by their place in the grid."""


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


def sweep(
    store: Objects,
    config: SweepConfig,
    cluster: ClusterConfig | None = None,
    track: Kind | None = None,
    *,
    direct: bool = True,
) -> Sweep:
    """Fit and score a grid; what is there already is used, and what a kill left is gone on with.

    `sweeps/latest` means it from then on, unless it is a step (`direct`) of something else.

    Raises: ConfigError, NotInStore, ArtifactError, FitError where no point came through.
    """
    grid = read_grid(config)
    require_tracker(track)
    opened = open_layers(store, config, track)
    require_layers(config, opened)
    tell_shared(opened)
    points = over_layers(grid.points, opened)
    identifier = sweep_id(opened, config)
    where = cluster or ClusterConfig()
    announce(plan_points(opened, points, config, measured=where.is_here))
    impossible = [of_layer(row, layer) for layer in opened for row in grid.impossible]
    board = Board(store, identifier, [*map(begun, points), *impossible])
    with board.shown():
        rows = _run(store, config, where, points, opened, board, track)
    remark_points(points, rows)
    if config.together:
        rows += score_together(opened, config, list(zip(points, rows, strict=True)))
    rows += impossible
    made = _save(store, identifier, config, opened, rows, direct)
    _tell_failed(made, ("layer", *grid.axes))
    return made


def _tell_failed(made: Sweep, axes: Sequence[str]) -> None:
    """Say which points failed, and what then. Raises: FitError where all did."""
    for row in made.failed:
        named = ", ".join(f"{name} {row[name]}" for name in axes if name in row)
        say(f"failed at {row['failed_at']}: {named}: {row['reason']}")
    n_failed, n_points = len(made.failed), len(made.rows)
    if n_failed == n_points:
        raise FitError(
            f"none of {n_points} points came through; the first: {made.rows[0]['reason']}"
        )
    if n_failed:
        say(
            f"{n_failed} of {n_points} points failed; mend what their reasons name or leave them "
            "out: the same command tries them again and finds what is done"
        )


def open_sweep_job(store: Objects, job: tuple[SweepConfig, Kind | None]) -> OpenLayers:
    """In a worker: open the caches."""
    console.quiet = True  # bars of several processes on one screen help nobody
    return open_layers(store, *job)


def _run(
    store: Objects,
    config: SweepConfig,
    where: ClusterConfig,
    points: Sequence[Point],
    opened: OpenLayers,
    board: Board,
    track: Kind | None,
) -> list[Row]:
    """Share the grid out; Dask gives a dead worker's part to another, which finds what is done."""
    with (
        open_workers(store, where, open_sweep_job, (config, track), here=lambda: opened) as workers,
        ExitStack() as stack,
    ):
        parts = share_out(points, len(workers.addresses), opened)
        advance: Callable[[int], None] = lambda n: None  # noqa: E731 - the stages show bars here
        if not where.is_here:
            say(f"{len(workers.addresses)} workers, {len(parts)} parts of the grid")
            advance = stack.enter_context(bar("Points", len(points)))
        rows: dict[int, Row] = {}
        tell = board.update if where.is_here else None  # workers send whole parts
        handles = (workers.submit(run_part, [(i, points[i]) for i in part], tell) for part in parts)
        for found in workers.results(handles):
            rows |= found
            board.update(found)
            advance(len(found))
    return [rows[i] for i in range(len(points))]


def run_part(
    opened: OpenLayers, part: Sequence[tuple[int, Point]], tell: Tell | None = None
) -> dict[int, Row]:
    """Run points, layer by layer, and give their rows by their place in the grid.

    `tell` is given the rows of a layer, likewise, whenever some of its points have got further.
    """
    found: dict[int, Row] = {}
    for layer, caches in opened.items():
        own = [(i, point) for i, point in part if point.layer == layer]
        places = [i for i, _ in own]

        def note(rows: list[Row], places: list[int] = places) -> None:
            if tell is not None:
                tell(dict(zip(places, rows, strict=True)))

        rows = run_points(caches, [point for _, point in own], note) if own else []
        found |= dict(zip(places, rows, strict=True))
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
    store: Objects,
    identifier: str,
    config: SweepConfig,
    opened: OpenLayers,
    rows: list[Row],
    direct: bool,
) -> Sweep:
    """Write tables, figures and document, in place of what an earlier run could not finish."""
    drawn = figures(rows, transfer_words(config.aux, config.target, config.backbone))
    pictures = {name: draw_sheet(strips) for name, strips in drawn.items()}
    files = {CSV: table_as_csv(rows), **pictures}
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
    saved = save_artifact(store, document, sweep_table(rows), lambda _: files, renew=True)
    made = give(saved, direct=direct)
    return Sweep(identifier, made.path, rows, list(pictures))
