"""Fig. S1: TopK guides with straight-through gradients over k_g, beside ReLU + l1 guides."""

from cache.objects import Objects
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.drawing.plots import draw_lines
from pipeline.metrics import PUBLISHED
from pipeline.reproduce.figure import Figure, sweep_config
from pipeline.sweep.run import sweep

_AXIS = "guides.topk_guides"


def fig_s1(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fit guides for every k_g over one SAE in one pass, and score them. Raises: as `sweep`."""
    by_count = ("guides.sparsity=topk", f"{_AXIS}={','.join(map(str, varied.guide_ks))}")
    made = sweep(store, sweep_config(config, vary=by_count))
    usual = sweep(store, sweep_config(config, vary=("guides.sparsity=relu",)))
    reference = usual.rows[0]
    n_used = reference["ema_nnz_normal"] + reference["ema_nnz_anomaly"]
    picture = draw_lines(
        made.rows,
        _AXIS,
        "coefficients a guide keeps, k_g",
        PUBLISHED,
        f"{config.aux} -> {config.target}, {config.backbone}, C = {config.width}, k = {config.k}",
        {f"ReLU + l1, {n_used:.0f} non-zero of 2 x {config.width}": reference},
    )
    return Figure("figS1", [*made.rows, *usual.rows], picture)
