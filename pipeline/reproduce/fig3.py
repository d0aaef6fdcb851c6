"""Fig. 3: image metrics over the temperature tau of pooling, from one pass over the target."""

from dataclasses import replace

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.drawing.plots import draw_lines
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.metrics import IMAGE_METRICS
from pipeline.reproduce.figure import Figure, Row
from pipeline.reproduce.table1 import stage_configs
from pipeline.scoring.score import score_group
from spg_core.errors import SpgError

_MAXIMUM = 0.0


def fig3(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fit what is missing, and pool every map at every tau and by its maximum.

    Each tau gives scores of its own in the store, all of them from the same maps.

    Raises: as `fit_sae`, `fit_guides` and `score`.
    """
    stages = stage_configs(config)
    aux = open_dataset(store, config.aux, config.backbone, config.aux_key)
    sae = fit_sae(store, aux, stages.sae, direct=False)
    guides = fit_guides(store, sae.id, stages.guides, direct=False)
    every = [*dict.fromkeys(varied.taus), _MAXIMUM]
    wanted = [(guides.id, replace(stages.score, tau=tau)) for tau in every]
    made = score_group(store, wanted, config.target, key=config.target_key)
    *points, maximum = [_row(tau, scores) for tau, scores in zip(every, made, strict=True)]
    title = f"{config.aux} -> {config.target}, {config.backbone}"
    picture = draw_lines(
        points, "tau", "tau", ["image_auroc", "image_ap"], title, {"maximum (tau -> 0)": maximum}
    )
    return Figure("fig3", [*points, maximum], picture)


def _row(tau: float, scores: Artifact[ScoresDocument] | SpgError) -> Row:
    """Give the mean over categories of image metrics; tau 0 is the maximum."""
    if isinstance(scores, SpgError):
        raise scores
    return {"tau": tau} | {name: scores.document.mean.values[name] for name in IMAGE_METRICS}
