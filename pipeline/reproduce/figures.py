"""The figures of the paper, from sweeps or one fit scored again; in one direction or both."""

from dataclasses import replace

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.configs import FigureConfig, ReproduceConfig, ScoreConfig
from pipeline.drawing.canvas import one_below_the_other
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
    """Make fig2, fig3, fig4 or figS1, in the directions asked for.

    Points say which they are of; the pictures stand one below the other.

    Raises: ConfigError for another name, and as the figure does.
    """
    made = [(one, _one_figure(name, store, one, varied)) for one in directions(config)]
    rows: list[Row] = [
        {"direction": f"{one.aux} -> {one.target}", **row}
        for one, each in made
        for row in each.rows
    ]
    return Figure(name, rows, one_below_the_other([each.picture for _, each in made]))


def directions(config: ReproduceConfig) -> list[ReproduceConfig]:
    """Give the config of each direction: as it is, and with its datasets exchanged."""
    back = replace(
        config,
        aux=config.target,
        target=config.aux,
        aux_key=config.target_key,
        target_key=config.aux_key,
    )
    return [config, back] if config.directions == "both" else [config]


def _one_figure(name: str, store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
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
    """Fig. 3: image metrics over the temperature tau of pooling, other poolings drawn across.

    What is missing is fitted. Each pooling gives scores of its own in the store, all of them from
    the same maps, in one pass over the target; the maximum has tau 0, the mean an infinite one.

    Raises: as `fit_sae`, `fit_guides` and `score`.
    """
    stages = stage_configs(config)
    aux = open_dataset(store, config.aux, config.backbone, config.aux_key)
    sae = fit_sae(store, aux, stages.sae, direct=False)
    guides = fit_guides(store, sae.id, stages.guides, direct=False)
    by_tau = [replace(stages.score, tau=tau) for tau in dict.fromkeys(varied.taus)]
    across = [replace(stages.score, pool=pool) for pool in dict.fromkeys(varied.pools)]
    wanted = [(guides.id, each) for each in (*by_tau, *across)]
    made = score_group(store, wanted, config.target, key=config.target_key)
    rows = [_row(each, scores) for (_, each), scores in zip(wanted, made, strict=True)]
    points, others = rows[: len(by_tau)], rows[len(by_tau) :]
    references = {str(each.pooling): row for each, row in zip(across, others, strict=True)}
    title = f"{config.aux} -> {config.target}, {config.backbone}"
    picture = draw_lines(points, "tau", "tau", ["image_auroc", "image_ap"], title, references)
    return Figure("fig3", rows, picture)


def _row(config: ScoreConfig, scores: Artifact[ScoresDocument] | SpgError) -> Row:
    """Give the pooling and the mean over categories of image metrics."""
    if isinstance(scores, SpgError):
        raise scores
    tau = config.tau if config.pool == "lse" else None
    means = {name: scores.document.mean.values[name] for name in IMAGE_METRICS}
    return {"pool": config.pool, "tau": tau, **means}


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
    n_used = sum(float(reference[f"ema_nnz_{name}"] or 0) for name in ("normal", "anomaly"))
    picture = draw_lines(
        made.rows,
        axis,
        "coefficients a guide keeps, k_g",
        PUBLISHED,
        f"{config.aux} -> {config.target}, {config.backbone}, C = {config.width}, k = {config.k}",
        {f"ReLU + l1, {n_used:.0f} non-zero of 2 x {config.width}": reference},
    )
    return Figure("figS1", [*made.rows, *usual.rows], picture)
