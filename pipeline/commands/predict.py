"""`spg-pipe predict`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import DEFAULT_STORE, Debug, Device, Store, given
from pipeline.configs import PredictConfig, ScoreConfig
from pipeline.recipes import from_recipe

if TYPE_CHECKING:
    from pipeline.prediction.predict import Prediction


def predict(
    ctx: typer.Context,
    images: Annotated[list[str], typer.Argument(help="Images, folders or quoted globs.")],
    guides: Annotated[str, typer.Option(help="Guides: id, start of an id, path, or latest.")],
    weights: Annotated[
        str | None, typer.Option(help="Weights file of the guides' backbone; the hub's otherwise.")
    ] = PredictConfig.weights,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from which an image is anomalous; the calibrated one otherwise."),
    ] = PredictConfig.threshold,
    out: Annotated[
        str | None, typer.Option(help="Folder for a heatmap and an overlay of each image.")
    ] = PredictConfig.out,
    tau: Annotated[
        float, typer.Option(help="Temperature of the image score: 0 is the maximum, inf the mean.")
    ] = ScoreConfig.tau,
    sigma: Annotated[
        float, typer.Option(help="Gaussian on the map, in pixels; 0 leaves it out.")
    ] = ScoreConfig.sigma,
    coefficients: Annotated[
        str, typer.Option(help="ema or raw: which of the fitted coefficients.")
    ] = ScoreConfig.coefficients,
    batch_size: Annotated[
        int, typer.Option(help="Images a forward pass.")
    ] = PredictConfig.batch_size,
    decoders: Annotated[
        int, typer.Option(help="Threads that decode images and write pictures.")
    ] = PredictConfig.decoders,
    device: Device = ScoreConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line an image.")] = False,
    debug: Debug = False,
) -> None:
    """Judge unseen images: score, verdict and heatmap; a broken image does not stop the rest."""
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.prediction.inputs import find_images
    from pipeline.prediction.predict import predict as run

    artifact = load_artifact(open_store(store, read_only=True), "guides", guides)
    recipe = str(artifact.document["config"]["recipe"])
    scoring = from_recipe(ScoreConfig, recipe, given(ctx, ScoreConfig))
    config = PredictConfig(
        weights=weights,
        threshold=threshold,
        out=out,
        batch_size=batch_size,
        decoders=decoders,
    )
    predictions = run(artifact, find_images(images), scoring, config)
    # No progress bar: rich would send our stdout lines to stderr while one is on a terminal.
    if not as_json:
        typer.echo(f"{'score':<7} {'verdict':<10} image")
    done = []
    for one in predictions:
        typer.echo(json.dumps(asdict(one)) if as_json else _line(one))
        done.append(one)
    _summary(done)
    if any(one.error is not None for one in done):
        raise typer.Exit(1)


def _line(one: "Prediction") -> str:
    if one.error is not None:
        return _printable(f"{'-':<7} {'error':<10} {one.error}")
    return _printable(f"{one.score:<7.4f} {one.verdict or '-':<10} {one.path}")


def _printable(text: str) -> str:
    """Replace what is not text in a file's name, so that it cannot steer or break a terminal."""
    known = text.encode("utf-8", "backslashreplace").decode()
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in known)


def _summary(done: list["Prediction"]) -> None:
    """Say on stderr how many of which, and by which threshold."""
    from pipeline.progress import say

    failed = [one for one in done if one.error is not None]
    scored = [one for one in done if one.error is None]
    text = f"{len(scored)} images scored, {len(failed)} failed"
    if scored and scored[0].threshold is not None:
        anomalous = sum(one.verdict == "anomalous" for one in scored)
        source = scored[0].threshold_source
        text += f"; {anomalous} anomalous from {scored[0].threshold:.4f} ({source})"
    elif scored:
        text += f"; no verdict, {scored[0].reason}"
    say(text)
