"""`spg-pipe demo`."""

from typing import TYPE_CHECKING

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import DemoConfig

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact
    from pipeline.artifacts.documents import ScoresDocument


def demo(config: DemoConfig) -> "Artifact[ScoresDocument]":
    """Run everything above on a generated sample, offline, in about two minutes on two cores."""
    from pipeline.demo import demo as run

    return run(config.folder)


def show_demo(made: "Artifact[ScoresDocument]", as_json: bool) -> None:
    """Print the metrics, and the page to open."""
    from pipeline.artifacts import to_json
    from pipeline.tables import metrics_table

    result = {"id": made.id, "path": made.path, "metrics": to_json(made.document)}
    text = f"{metrics_table(made.document)}\nopen {made.path}/report.html"
    show(result, as_json, text)


app = alone("demo", from_config(demo, show_demo))
