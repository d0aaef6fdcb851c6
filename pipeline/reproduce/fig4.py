"""Fig. 4: the four backbones, each with an SAE and guides of its own."""

from cache.objects import Objects
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.drawing.plots import draw_bars
from pipeline.reproduce.figure import Figure, Row, sweep_config
from pipeline.reproduce.needs import Need
from pipeline.sweep.run import sweep


def fig4_needs(config: ReproduceConfig, varied: FigureConfig) -> list[Need]:
    """Give the caches of both datasets by every backbone."""
    return [
        Need(dataset, backbone)
        for backbone in dict.fromkeys(varied.backbones)
        for dataset in (config.aux, config.target)
    ]


def fig4(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fit and score each backbone, or find it done. Raises: as `sweep`."""
    rows: list[Row] = []
    for backbone in dict.fromkeys(varied.backbones):
        made = sweep(store, sweep_config(config, backbone=backbone))
        rows += [{"backbone": backbone, **row} for row in made.rows]
    return Figure("fig4", rows, draw_bars(rows, "backbone", f"{config.aux} -> {config.target}"))
