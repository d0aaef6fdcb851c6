"""`spg-pipe calibrate`."""

import json
from typing import Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_STORE, Debug, Device, Json, Store, given
from pipeline.configs import ScoreConfig
from pipeline.recipes import from_recipe


def calibrate(
    ctx: typer.Context,
    guides: Annotated[str, typer.Option(help="Guides: id, start of an id, path, or latest.")],
    fpr: Annotated[
        float | None,
        typer.Option(help="Share of normal auxiliary images to flag; the highest F1 otherwise."),
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
    device: Device = ScoreConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Choose the threshold of predict on the auxiliary images, and keep it with the guides."""
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.prediction.threshold import calibrate as run

    objects = open_store(store)
    artifact = load_artifact(objects, "guides", guides)
    recipe = str(artifact.document["config"]["recipe"])
    made = run(objects, artifact, from_recipe(ScoreConfig, recipe, given(ctx, ScoreConfig)), fpr)
    typer.echo(json.dumps(made) if as_json else _text(made))


def _text(made: dict[str, Any]) -> str:
    from pipeline.prediction.threshold import describe

    found = made["measured"]
    return (
        f"threshold {made['threshold']:.4f}, {describe(made)}\n"
        f"  there it flags {found['fpr']:.1%} of {found['n_normal']} normal and "
        f"{found['tpr']:.1%} of {found['n_anomalous']} anomalous images, F1 {found['f1']:.3f}\n"
        "  the guides were fitted on these images, so expect worse on new ones"
    )
