"""The figures of the paper, each from sweeps or from one fit scored again."""

from dataclasses import replace

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.drawing.plots import Row, draw_bars, draw_heatmaps, draw_lines
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.metrics import IMAGE_METRICS, PUBLISHED
from pipeline.reproduce.figure import Figure, sweep_config
from pipeline.reproduce.needs import Need
from pipeline.reproduce.table1 import stage_configs
from pipeline.scoring.score import score_group
from pipeline.sweep.run import sweep
from spg_core.errors import ConfigError, SpgError


def make_figure(name: str, store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Make fig2, fig3, fig4 or figS1. Raises: ConfigError for another, and as the figure does."""
    match name:
        case "fig2":
            return fig2(store, config, varied)
        case "fig3":
            return fig3(store, config, varied)
        case "fig4":
            return fig4(store, config, varied)
        case "figS1":
            return fig_s1(store, config, varied)
        case other:
            raise ConfigError(f"figures are fig2, fig3, fig4 and figS1, got {other!r}")


def fig2(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fig. 2: metrics over dictionary size C and sparsity k, one sweep. Raises: as `sweep`."""
    made = sweep(store, sweep_config(config, width=varied.widths, k=varied.ks))
    title = f"{config.aux} -> {config.target}, {config.backbone}"
    return Figure("fig2", list(made.rows), draw_heatmaps(made.rows, title))


def fig3(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fig. 3: image metrics over the temperature tau of pooling, and for the maximum of the map.

    What is missing is fitted. Each tau gives scores of its own in the store, all of them from the
    same maps, in one pass over the target; tau 0 is the maximum.

    Raises: as `fit_sae`, `fit_guides` and `score`.
    """
    stages = stage_configs(config)
    aux = open_dataset(store, config.aux, config.backbone, config.aux_key)
    sae = fit_sae(store, aux, stages.sae, direct=False)
    guides = fit_guides(store, sae.id, stages.guides, direct=False)
    every = [*dict.fromkeys(varied.taus), 0.0]
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


def fig4_needs(config: ReproduceConfig, varied: FigureConfig) -> list[Need]:
    """Give the caches of both datasets by every backbone."""
    return [
        Need(dataset, backbone)
        for backbone in dict.fromkeys(varied.backbones)
        for dataset in (config.aux, config.target)
    ]


def fig4(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fig. 4: the four backbones, each with an SAE and guides of its own. Raises: as `sweep`."""
    rows: list[Row] = []
    for backbone in dict.fromkeys(varied.backbones):
        made = sweep(store, sweep_config(config, backbone=backbone))
        rows += [{"backbone": backbone, **row} for row in made.rows]
    return Figure("fig4", rows, draw_bars(rows, "backbone", f"{config.aux} -> {config.target}"))


def fig_s1(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fig. S1: TopK guides with straight-through gradients over k_g, beside ReLU + l1 guides.

    The guides of every k_g are fitted over one SAE in one pass. Raises: as `sweep`.
    """
    axis = "guides.topk_guides"
    by_count = ("guides.sparsity=topk", f"{axis}={','.join(map(str, varied.guide_ks))}")
    made = sweep(store, sweep_config(config, vary=by_count))
    usual = sweep(store, sweep_config(config, vary=("guides.sparsity=relu",)))
    reference = usual.rows[0]
    n_used = reference["ema_nnz_normal"] + reference["ema_nnz_anomaly"]
    picture = draw_lines(
        made.rows,
        axis,
        "coefficients a guide keeps, k_g",
        PUBLISHED,
        f"{config.aux} -> {config.target}, {config.backbone}, C = {config.width}, k = {config.k}",
        {f"ReLU + l1, {n_used:.0f} non-zero of 2 x {config.width}": reference},
    )
    return Figure("figS1", [*made.rows, *usual.rows], picture)
