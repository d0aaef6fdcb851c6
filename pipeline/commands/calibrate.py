"""`spg-pipe calibrate`."""

from typing import TYPE_CHECKING, Annotated

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import CalibrateSource, ScoreConfig
from pipeline.options import Asked, Without

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.artifacts.notes import ThresholdDocument


def calibrate(
    store: "AnyStore",
    source: CalibrateSource,
    asked: Annotated[Asked[ScoreConfig], Without("aupro")],
) -> "ThresholdDocument":
    """Choose the threshold of predict on the auxiliary images, and keep it with the guides."""
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.prediction.threshold import calibrate as run

    objects = open_store(store)
    guides = load_artifact(objects, "guides", source.guides)
    config = asked.under(guides.document.config.recipe)
    return run(objects, guides, config, source.fpr)


def show_threshold(made: "ThresholdDocument", as_json: bool) -> None:
    """Print the threshold and what it does on the images it was chosen on."""
    from pipeline.artifacts import to_json
    from pipeline.prediction.threshold import describe

    found = made.measured
    text = (
        f"threshold {made.threshold:.4f}, {describe(made)}\n"
        f"  there it flags {found.fpr:.1%} of {found.n_normal} normal and "
        f"{found.tpr:.1%} of {found.n_anomalous} anomalous images, F1 {found.f1:.3f}\n"
        "  the guides were fitted on these images, so expect worse on new ones"
    )
    show(to_json(made), as_json, text)


app = alone("calibrate", from_config(calibrate, show_threshold))
