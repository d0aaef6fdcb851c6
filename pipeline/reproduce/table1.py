"""Table 1: image AUROC and AP, pixel AUROC and AUPRO, in both directions, beside the published.

visa:  SAE -> guides -> scores on mvtec
mvtec: SAE -> guides -> scores on visa
"""

from dataclasses import dataclass

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.backbones.spec import require_same_tokens
from pipeline.configs import (
    FitGuidesConfig,
    FitSaeConfig,
    ReproduceConfig,
    ScoreConfig,
)
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.fitting.start_remark import remark_start
from pipeline.inputs import open_dataset
from pipeline.recipes import from_recipe
from pipeline.reproduce.needs import Need, both_datasets
from pipeline.scoring.compare import compare
from pipeline.scoring.overlap import remark_shared
from pipeline.scoring.published import Direction
from pipeline.scoring.score import score
from pipeline.tables.metrics import PUBLISHED
from pipeline.tables.of_metrics import Row, Table
from pipeline.terminal.progress import say
from pipeline.tracking import Kind


@dataclass(frozen=True)
class Table1:
    """The table, and the scores it was made from."""

    table: Table
    scores: list[Artifact[ScoresDocument]]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The configs of the three stages of one direction."""

    sae: FitSaeConfig
    guides: FitGuidesConfig
    score: ScoreConfig


def table1(store: Objects, config: ReproduceConfig, track: Kind | None = None) -> Table1:
    """Fit and score the directions asked for, using what is there already, and lay them out.

    Raises: as `fit_sae`, `fit_guides` and `score`; the caches are there (`require_caches`).
    """
    aux, target = both_datasets(config)
    every: list[tuple[Need, Need, Direction]] = [
        (aux, target, "VisA -> MVTec AD"),
        (target, aux, "MVTec AD -> VisA"),
    ]
    directions = every if config.directions == "both" else every[:1]
    stages = stage_configs(config)
    _require_one_backbone(store, aux, target)
    rows: list[Row] = []
    notes = [f"in %; image AUROC and AP, pixel AUROC and AUPRO ({config.aupro})"]
    scores = []
    for fitted_on, scored_on, direction in directions:
        say(f"\n{fitted_on.dataset} -> {scored_on.dataset}")
        made = one_direction(store, stages, fitted_on, scored_on, track)
        comparison = compare(store, made, direction)
        assert comparison is not None
        section = f"{fitted_on.dataset} -> {scored_on.dataset}"
        name = f"ours ({config.backbone}, {config.recipe}, seed {config.seed})"
        values = made.document.mean.values
        rows += [Row(section=section, kind="mean", name=name, values=values)]
        rows += comparison.rows(section)
        notes += comparison.notes()
        scores.append(made)
    return Table1(Table(metrics=PUBLISHED, rows=rows, notes=list(dict.fromkeys(notes))), scores)


def one_direction(
    store: Objects, stages: Stages, fitted_on: Need, scored_on: Need, track: Kind | None = None
) -> Artifact[ScoresDocument]:
    """Fit an SAE and guides on one dataset and score the other."""
    data = open_dataset(store, fitted_on.dataset, fitted_on.backbone, fitted_on.key)
    sae = fit_sae(store, data, stages.sae, direct=False, track=track)
    guides = fit_guides(store, sae.id, stages.guides, direct=False, track=track)
    remark_start([guides.document.training.ema_start_share])
    target, key = scored_on.dataset, scored_on.key
    return score(store, guides, target, stages.score, key=key, direct=False)


def stage_configs(config: ReproduceConfig) -> Stages:
    """Make the configs of all stages, so that a wrong value stops before the first fit.

    Raises: ConfigError.
    """
    seed, device = config.seed, config.device
    sae = {"width": config.width, "k": config.k, "epochs": config.sae_epochs, "seed": seed}
    guides = {"epochs": config.guide_epochs, "seed": seed}
    scoring = {"aupro": config.aupro, "device": device}
    return Stages(
        sae=from_recipe(FitSaeConfig, config.recipe, {**sae, "device": device}),
        guides=from_recipe(FitGuidesConfig, config.recipe, {**guides, "device": device}),
        score=from_recipe(ScoreConfig, config.recipe, scoring),
    )


def _require_one_backbone(store: Objects, aux: Need, target: Need) -> None:
    """Refuse tokens that do not fit each other, and say whether images are shared."""
    one = open_dataset(store, aux.dataset, aux.backbone, aux.key)
    other = open_dataset(store, target.dataset, target.backbone, target.key)
    require_same_tokens(one.spec.covers(), other.spec.covers(), one.cache.where, other.cache.where)
    remark_shared(one, other)
