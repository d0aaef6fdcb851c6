"""The figures of the paper, from sweeps or one fit scored again; in one direction or both."""

from dataclasses import replace

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.configs import FigureConfig, ReproduceConfig, ScoreConfig
from pipeline.drawing.points import Row
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.fitting.start_remark import remark_start
from pipeline.inputs import open_dataset
from pipeline.reproduce.figure import Figure, sweep_config
from pipeline.reproduce.needs import Need
from pipeline.reproduce.pictures import GUIDE_K, figure_strips, published_directions
from pipeline.reproduce.table1 import stage_configs
from pipeline.scoring.overlap import remark_shared
from pipeline.scoring.score import score_group
from pipeline.sweep.run import sweep
from pipeline.tables.metrics import IMAGE_METRICS
from pipeline.tracking import Kind
from spg_core.errors import ConfigError, SpgError


def make_figure(
    name: str,
    store: Objects,
    config: ReproduceConfig,
    varied: FigureConfig,
    track: Kind | None = None,
) -> Figure:
    """Make fig2, fig3, fig4 or figS1, in the directions asked for.

    Points say which they are of; the pictures stand one below the other.

    Raises: ConfigError for another name, and as the figure does.
    """
    rows: list[Row] = [
        {"direction": f"{one.aux} -> {one.target}", **row}
        for one in directions(config)
        for row in _rows(name, store, one, varied, track)
    ]
    return Figure(
        name, rows, figure_strips(name, rows, config, published_directions(store, config))
    )


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


def _rows(
    name: str,
    store: Objects,
    config: ReproduceConfig,
    varied: FigureConfig,
    track: Kind | None,
) -> list[Row]:
    match name:
        case "fig2":
            return fig2(store, config, varied, track)
        case "fig3":
            return fig3(store, config, varied, track)
        case "fig4":
            return fig4(store, config, varied, track)
        case "figS1":
            return fig_s1(store, config, varied, track)
        case other:
            raise ConfigError(f"figures are fig2, fig3, fig4 and figS1, got {other!r}")


def fig2(
    store: Objects, config: ReproduceConfig, varied: FigureConfig, track: Kind | None = None
) -> list[Row]:
    """Fig. 2: metrics over dictionary size C and sparsity k, one sweep. Raises: as `sweep`."""
    asked = sweep_config(config, width=varied.widths, k=varied.ks, seeds=varied.seeds)
    return list(sweep(store, asked, track=track, direct=False).rows)


def fig3(
    store: Objects, config: ReproduceConfig, varied: FigureConfig, track: Kind | None = None
) -> list[Row]:
    """Fig. 3: image metrics over the temperature tau of pooling, other poolings drawn across.

    What is missing is fitted. Each pooling gives scores of its own in the store, all of them from
    the same maps, in one pass over the target; the maximum has tau 0, the mean an infinite one.

    Raises: as `fit_sae`, `fit_guides` and `score`.
    """
    aux = open_dataset(store, config.aux, config.backbone, config.aux_key)
    remark_shared(aux, open_dataset(store, config.target, config.backbone, config.target_key))
    scoring = stage_configs(config).score
    asked = [replace(scoring, tau=tau) for tau in dict.fromkeys(varied.taus)]
    asked += [replace(scoring, pool=pool) for pool in dict.fromkeys(varied.pools)]
    wanted, shares = [], []
    for seed in seeds_of(config, varied):
        stages = stage_configs(replace(config, seed=seed))
        sae = fit_sae(store, aux, stages.sae, direct=False, track=track)
        guides = fit_guides(store, sae.id, stages.guides, direct=False, track=track)
        shares.append(guides.document.training.ema_start_share)
        wanted += [(seed, guides.id, each) for each in asked]
    remark_start(shares)
    made = score_group(
        store,
        [(guides, each) for _, guides, each in wanted],
        config.target,
        key=config.target_key,
    )
    return [_row(each, seed, one) for (seed, _, each), one in zip(wanted, made, strict=True)]


def seeds_of(config: ReproduceConfig, varied: FigureConfig) -> tuple[int, ...]:
    """Give the seeds of all fits, each once."""
    return tuple(dict.fromkeys(varied.seeds or (config.seed,)))


def _row(config: ScoreConfig, seed: int, scores: Artifact[ScoresDocument] | SpgError) -> Row:
    """Give the pooling, the seed and the mean over categories of image metrics."""
    if isinstance(scores, SpgError):
        raise scores
    tau = config.tau if config.pool == "lse" else None
    means = {name: scores.document.mean.values[name] for name in IMAGE_METRICS}
    return {"pool": config.pool, "tau": tau, "seed": seed, **means}


def fig4_needs(config: ReproduceConfig, varied: FigureConfig) -> list[Need]:
    """Give the caches of both datasets by every backbone."""
    return [
        Need(dataset, backbone)
        for backbone in dict.fromkeys(varied.backbones)
        for dataset in (config.aux, config.target)
    ]


def fig4(
    store: Objects, config: ReproduceConfig, varied: FigureConfig, track: Kind | None = None
) -> list[Row]:
    """Fig. 4: the four backbones, each with an SAE and guides of its own. Raises: as `sweep`."""
    rows: list[Row] = []
    for backbone in dict.fromkeys(varied.backbones):
        asked = sweep_config(config, backbone=backbone, seeds=varied.seeds)
        made = sweep(store, asked, track=track, direct=False)
        rows += [{"backbone": backbone, **row} for row in made.rows]
    return rows


def fig_s1(
    store: Objects, config: ReproduceConfig, varied: FigureConfig, track: Kind | None = None
) -> list[Row]:
    """Fig. S1: TopK guides with straight-through gradients over k_g, beside ReLU + l1 guides.

    The guides of every k_g are fitted over one SAE in one pass. Raises: as `sweep`.
    """
    by_count = ("guides.sparsity=topk", f"{GUIDE_K}={','.join(map(str, varied.guide_ks))}")
    both = [
        sweep(
            store,
            sweep_config(config, vary=vary, seeds=varied.seeds),
            track=track,
            direct=False,
        )
        for vary in (by_count, ("guides.sparsity=relu",))
    ]
    return [row for made in both for row in made.rows]
