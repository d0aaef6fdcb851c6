"""`spg-pipe export`."""

from typing import TYPE_CHECKING, Annotated

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import ExportSource, ScoreConfig
from pipeline.options import Asked, Without

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.prediction.export import Exported


def export(
    store: "AnyStore",
    source: ExportSource,
    asked: Annotated[Asked[ScoreConfig], Without("aupro", "device")],
) -> "Exported":
    """Write the detector as one ONNX file, RGB to map and score, and check it in onnxruntime."""
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.prediction.export import export as run

    guides = load_artifact(open_store(store, read_only=True), "guides", source.guides)
    config = asked.under(guides.document.config.recipe)
    return run(guides, source.out, config, source.weights)


def show_export(made: "Exported", as_json: bool) -> None:
    """Print the files, and how far onnxruntime is from ours."""
    check = made.document["check"]
    result = {"path": made.path, "sidecar": made.sidecar}
    text = (
        f"{made.path}\n{made.sidecar}\n"
        f"  differs from ours by at most {check['map_max_abs_difference']:.1e} in maps and "
        f"{check['score_max_abs_difference']:.1e} in scores ({check['images']} images)"
    )
    show({**result, "guides": made.document["guides"], "check": check}, as_json, text)


app = alone("export", from_config(export, show_export))
