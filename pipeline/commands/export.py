"""`spg-pipe export`."""

from typing import Annotated

import typer

from pipeline.commands.options import DEFAULT_STORE, Debug, Json, Store, given, show
from pipeline.configs import ScoreConfig
from pipeline.recipes import from_recipe


def export(
    ctx: typer.Context,
    guides: Annotated[str, typer.Option(help="Guides: id, start of an id, path, or latest.")],
    out: Annotated[str, typer.Option(help="Path of the .onnx file; its .json is written beside.")],
    weights: Annotated[
        str | None, typer.Option(help="Weights file of the guides' backbone; the hub's otherwise.")
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
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the detector as one ONNX file, RGB to map and score, and check it in onnxruntime."""
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.prediction.export import export as run

    artifact = load_artifact(open_store(store, read_only=True), "guides", guides)
    recipe = str(artifact.document["config"]["recipe"])
    config = from_recipe(ScoreConfig, recipe, given(ctx, ScoreConfig))
    made = run(artifact, out, config, weights)
    check = made.document["check"]
    show(
        {"path": made.path, "sidecar": made.sidecar, "guides": artifact.id, "check": check},
        as_json,
        f"{made.path}\n{made.sidecar}\n"
        f"  differs from ours by at most {check['map_max_abs_difference']:.1e} in maps and "
        f"{check['score_max_abs_difference']:.1e} in scores ({check['images']} images)",
    )
