"""`spg-pipe score`."""

from typing import Annotated

import typer

from pipeline.commands.options import (
    DEFAULT_STORE,
    Debug,
    Device,
    Json,
    Key,
    Scheduler,
    Store,
    Workers,
    given,
    show,
)
from pipeline.configs import ClusterConfig, ScoreConfig
from pipeline.recipes import from_recipe


def score(
    ctx: typer.Context,
    guides: Annotated[str, typer.Option(help="Guides: id, start of an id, path, or latest.")],
    dataset: Annotated[str, typer.Option(help="Target dataset, by its name in the store.")],
    key: Key = None,
    recipe: Annotated[
        str | None, typer.Option(help="released or paper; the guides' recipe otherwise.")
    ] = None,
    tau: Annotated[
        float, typer.Option(help="Temperature of the image score: 0 is the maximum, inf the mean.")
    ] = ScoreConfig.tau,
    sigma: Annotated[
        float, typer.Option(help="Gaussian on the map, in pixels; 0 leaves it out.")
    ] = ScoreConfig.sigma,
    coefficients: Annotated[
        str, typer.Option(help="ema or raw: which of the fitted coefficients.")
    ] = ScoreConfig.coefficients,
    aupro: Annotated[
        str, typer.Option(help="exact, or clip200 (the released definition).")
    ] = ScoreConfig.aupro,
    save_maps: Annotated[bool, typer.Option("--save-maps", help="Keep the maps, maps.zarr.")] = (
        False
    ),
    report: Annotated[bool, typer.Option("--report", help="Write report.html.")] = False,
    device: Device = ScoreConfig.device,
    workers: Workers = ClusterConfig.workers,
    scheduler: Scheduler = ClusterConfig.scheduler,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Score a cached dataset with fitted guides: maps, image scores, metrics."""
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.scoring.score import score as run
    from pipeline.tables import metrics_table

    objects = open_store(store)
    artifact = load_artifact(objects, "guides", guides)
    fitted = str(artifact.document["config"]["recipe"])
    config = from_recipe(ScoreConfig, recipe or fitted, given(ctx, ScoreConfig))
    made = run(
        objects,
        artifact,
        dataset,
        config,
        key=key,
        save_maps=save_maps,
        report=report,
        cluster=ClusterConfig(workers=workers, scheduler=scheduler),
    )
    if as_json:
        show({"id": made.id, "path": made.path, "metrics": made.document}, True, "")
    else:
        typer.echo(metrics_table(made.document))
        typer.echo(f"{made.path}/report.html" if report else made.path)
