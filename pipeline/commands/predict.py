"""`spg-pipe predict`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.from_config import JSON_LINES, alone, from_config
from pipeline.configs import PredictConfig, PredictSource, ScoreConfig
from pipeline.options import Asked, Without
from pipeline.printable import printable_line

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.prediction.predict import Prediction


def predict(
    store: "AnyStore",
    source: PredictSource,
    config: PredictConfig,
    asked: Annotated[Asked[ScoreConfig], Without("aupro")],
) -> "Iterator[Prediction]":
    """Judge unseen images: score, verdict and heatmap; a broken image does not stop the rest."""
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.prediction.inputs import find_images
    from pipeline.prediction.predict import predict as run

    guides = load_artifact(open_store(store, read_only=True), "guides", source.guides)
    scoring = asked.under(guides.document.config.recipe)
    return run(guides, find_images(source.images), scoring, config)


def show_predictions(predictions: "Iterable[Prediction]", as_json: bool) -> None:
    """Print an image a line as it is judged, a summary on stderr; exit 1 where one failed."""
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
        return printable_line(f"{'-':<7} {'error':<10} {one.error}")
    return printable_line(f"{one.score:<7.4f} {one.verdict or '-':<10} {one.path}")


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


app = alone("predict", from_config(predict, show_predictions, json_help=JSON_LINES))
