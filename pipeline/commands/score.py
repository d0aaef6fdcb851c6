"""`spg-pipe score`."""

from typing import TYPE_CHECKING

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import ClusterConfig, ScoreConfig, ScoreSource
from pipeline.options import Asked

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.artifacts import Artifact
    from pipeline.artifacts.documents import ScoresDocument


def score(
    store: "AnyStore", source: ScoreSource, asked: Asked[ScoreConfig], cluster: ClusterConfig
) -> "Artifact[ScoresDocument]":
    """Score a cached dataset with fitted guides: maps, image scores, metrics."""
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.scoring.score import score as run

    objects = open_store(store)
    guides = load_artifact(objects, "guides", source.guides)
    config = asked.under(source.recipe or guides.document.config.recipe)
    return run(
        objects,
        guides,
        source.dataset,
        config,
        key=source.key,
        save_maps=source.save_maps,
        report=source.report,
        cluster=cluster,
    )


def show_scores(made: "Artifact[ScoresDocument]", as_json: bool) -> None:
    """Print the metrics in %, and where they and the report are."""
    from pipeline.artifacts import to_json
    from pipeline.tables import metrics_table

    has_report = made.place.store.size(made.place.name("report.html")) is not None
    place = f"{made.path}/report.html" if has_report else made.path
    result = {"id": made.id, "path": made.path, "metrics": to_json(made.document)}
    show(result, as_json, f"{metrics_table(made.document)}\n{place}")


app = alone("score", from_config(score, show_scores))
