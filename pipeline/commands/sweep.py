"""`spg-pipe sweep`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from pipeline.commands.options import (
    DEFAULT_STORE,
    Debug,
    Device,
    Json,
    Scheduler,
    Store,
    Workers,
    show,
    values,
)
from pipeline.configs import ClusterConfig, SweepConfig
from pipeline.metrics import METRICS, percent


def sweep(
    ctx: typer.Context,
    aux: Annotated[
        str, typer.Option(help="Auxiliary dataset, by its name in the store.")
    ] = SweepConfig.aux,
    target: Annotated[
        str, typer.Option(help="Target dataset, by its name in the store.")
    ] = SweepConfig.target,
    backbone: Annotated[
        str, typer.Option(help="Backbone whose tokens are used.")
    ] = SweepConfig.backbone,
    aux_key: Annotated[
        str | None, typer.Option(help="Key of the auxiliary cache, where there are several.")
    ] = SweepConfig.aux_key,
    target_key: Annotated[
        str | None, typer.Option(help="Key of the target's cache, where there are several.")
    ] = SweepConfig.target_key,
    width: Annotated[
        str, typer.Option(help="Atoms in the dictionary, C: a list such as 2048,4096.")
    ] = SweepConfig.width,
    k: Annotated[str, typer.Option(help="Latents a token may use: a list.")] = SweepConfig.k,
    seed: Annotated[
        str, typer.Option(help="Seeds: a list; each takes a pass over the tokens of its own.")
    ] = SweepConfig.seed,
    recipe: Annotated[str, typer.Option(help="released, paper: a list.")] = SweepConfig.recipe,
    order: Annotated[str, typer.Option(help="images, tokens: a list.")] = SweepConfig.order,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="Values of any other field of a stage (sae, guides, score), such as "
            "guides.beta=1e-4,1e-3 or sae.epochs=10. May be repeated."
        ),
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option(help="GB that SAEs in training may take at a time.")
    ] = SweepConfig.memory_gb,
    workers: Workers = ClusterConfig.workers,
    scheduler: Scheduler = ClusterConfig.scheduler,
    device: Device = SweepConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit and score a grid in one pass over the tokens; killed, it goes on where it stood."""
    from cache.store import open_store
    from pipeline.sweep.run import sweep as run

    config = SweepConfig(**values(ctx, SweepConfig))
    cluster = ClusterConfig(**values(ctx, ClusterConfig))
    made = run(open_store(store), config, cluster)
    failed = [dict(row) for row in made.failed]
    result = {
        "id": made.id,
        "path": made.path,
        "points": len(made.rows),
        "failed": failed,
        "figures": made.figures,
    }
    show(result, as_json, _sweep_text(made.id, made.path, made.rows))


def _sweep_text(identifier: str, path: str, rows: Sequence[Mapping[str, Any]]) -> str:
    done = [row for row in rows if row["state"] == "done"]
    lines = [f"{identifier}: {len(done)} of {len(rows)} points"]
    for metric in ("image_auroc", "pixel_aupro"):
        best = max(
            done, key=lambda row: -1.0 if row.get(metric) is None else row[metric], default={}
        )
        if best.get(metric) is not None:
            where = f"C = {best['width']}, k = {best['k']}"
            lines.append(f"  best {METRICS[metric].label} {percent(best[metric])} %: {where}")
    return "\n".join([*lines, f"{path}/sweep.parquet"])
