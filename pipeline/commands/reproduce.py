"""`spg-pipe reproduce`."""

from typing import Annotated

import typer

from pipeline.commands.options import (
    DEFAULT_STORE,
    Debug,
    Device,
    Json,
    Recipe,
    Seed,
    Store,
    show,
    values,
)
from pipeline.configs import FigureConfig, ReproduceConfig
from spg_core.errors import ConfigError


def reproduce(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(help="table1, fig2, fig3, fig4 or figS1.")],
    aux: Annotated[
        str, typer.Option(help="First dataset, by its name in the store.")
    ] = ReproduceConfig.aux,
    target: Annotated[
        str, typer.Option(help="Second dataset, by its name in the store.")
    ] = ReproduceConfig.target,
    backbone: Annotated[
        str, typer.Option(help="Backbone whose tokens are used.")
    ] = ReproduceConfig.backbone,
    aux_key: Annotated[
        str | None, typer.Option(help="Key of the first's cache, where there are several.")
    ] = ReproduceConfig.aux_key,
    target_key: Annotated[
        str | None, typer.Option(help="Key of the second's cache, where there are several.")
    ] = ReproduceConfig.target_key,
    recipe: Recipe = ReproduceConfig.recipe,
    width: Annotated[int, typer.Option(help="Atoms in the dictionary, C.")] = ReproduceConfig.width,
    k: Annotated[int, typer.Option(help="Latents a token may use.")] = ReproduceConfig.k,
    sae_epochs: Annotated[
        int, typer.Option(help="Passes of fit-sae over the tokens.")
    ] = ReproduceConfig.sae_epochs,
    guide_epochs: Annotated[
        int, typer.Option(help="Passes of fit-guides over the images.")
    ] = ReproduceConfig.guide_epochs,
    seed: Seed = ReproduceConfig.seed,
    aupro: Annotated[
        str, typer.Option(help="clip200 (the released definition, as published) or exact.")
    ] = ReproduceConfig.aupro,
    widths: Annotated[str, typer.Option(help="C of fig2: a list.")] = FigureConfig.widths,
    ks: Annotated[str, typer.Option(help="k of fig2: a list.")] = FigureConfig.ks,
    taus: Annotated[
        str, typer.Option(help="Pooling temperatures of fig3: a list.")
    ] = FigureConfig.taus,
    backbones: Annotated[
        str, typer.Option(help="Backbones of fig4: a list.")
    ] = FigureConfig.backbones,
    guide_ks: Annotated[
        str, typer.Option(help="Coefficients a guide keeps, k_g of figS1: a list.")
    ] = FigureConfig.guide_ks,
    out: Annotated[
        str | None,
        typer.Option(
            help="Also write the table to this .csv, .tex or .parquet file, "
            "or the figure to this .png, .csv or .parquet file."
        ),
    ] = None,
    device: Device = ReproduceConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit and score what a table or figure of the paper needs, ours beside the published."""
    config = ReproduceConfig(**values(ctx, ReproduceConfig))
    match what:
        case "table1":
            _table1(config, store, out, as_json)
        case "fig2" | "fig3" | "fig4" | "figS1":
            _figure(what, config, FigureConfig(**values(ctx, FigureConfig)), store, out, as_json)
        case _:
            raise ConfigError(f"reproduce knows table1, fig2, fig3, fig4 and figS1, got {what!r}")


def _table1(config: ReproduceConfig, store: str, out: str | None, as_json: bool) -> None:
    from cache.store import open_store
    from pipeline.reproduce.needs import both_datasets, require_caches
    from pipeline.tables import as_records, check_out, to_text, write_table

    if out is not None:
        # before the hours of work, not after them
        check_out(out)
    objects = open_store(store)
    require_caches(objects, both_datasets(config), store)
    from pipeline.reproduce.table1 import table1

    made = table1(objects, config)
    if out is not None:
        write_table(made.table, out)
    result = {
        "scores": [{"id": one.id, "path": one.path} for one in made.scores],
        "rows": as_records(made.table),
        "notes": list(made.table.notes),
    }
    show(result, as_json, to_text(made.table))


def _figure(
    what: str,
    config: ReproduceConfig,
    varied: FigureConfig,
    store: str,
    out: str | None,
    as_json: bool,
) -> None:
    from cache.store import open_store
    from pipeline.reproduce.fig4 import fig4_needs
    from pipeline.reproduce.figure import check_out, save_figure, write_out
    from pipeline.reproduce.figures import make_figure
    from pipeline.reproduce.needs import both_datasets, require_caches

    if out is not None:
        check_out(out)
    objects = open_store(store)
    needs = fig4_needs(config, varied) if what == "fig4" else both_datasets(config)
    require_caches(objects, needs, store)
    made = make_figure(what, objects, config, varied)
    path = save_figure(objects, made, config, varied)
    if out is not None:
        write_out(made, out)
    result = {"path": path, "points": [dict(row) for row in made.rows]}
    show(result, as_json, f"{len(made.rows)} points\n{path}/figure.png")
