"""Fig. 2: metrics over dictionary size C and sparsity k, one sweep."""

from cache.objects import Objects
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.drawing.plots import draw_heatmaps
from pipeline.reproduce.figure import Figure, sweep_config
from pipeline.sweep.run import sweep


def fig2(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fit and score the grid, or find it done. Raises: as `sweep`."""
    made = sweep(store, sweep_config(config, width=varied.widths, k=varied.ks))
    title = f"{config.aux} -> {config.target}, {config.backbone}"
    return Figure("fig2", list(made.rows), draw_heatmaps(made.rows, title))
