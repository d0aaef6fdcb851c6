"""Fig. 4: the four backbones, each with an SAE and guides of its own."""

from collections.abc import Sequence

import numpy as np

from cache.objects import Objects
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.reproduce.figure import Figure, Row, as_png, sweep_config
from pipeline.reproduce.needs import Need
from pipeline.sweep.grid import split_values
from pipeline.sweep.run import sweep
from pipeline.sweep.table import PANELS


def fig4_needs(config: ReproduceConfig, varied: FigureConfig) -> list[Need]:
    """Give the caches of both datasets by every backbone."""
    return [
        Need(dataset, backbone)
        for backbone in split_values("backbones", varied.backbones, "")
        for dataset in (config.aux, config.target)
    ]


def fig4(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fit and score each backbone, or find it done. Raises: as `sweep`."""
    rows: list[Row] = []
    for backbone in split_values("backbones", varied.backbones, ""):
        made = sweep(store, sweep_config(config, backbone=backbone))
        rows += [{"backbone": backbone, **row} for row in made.rows]
    return Figure("fig4", rows, _draw(rows, f"{config.aux} -> {config.target}"))


def _draw(rows: Sequence[Row], title: str) -> bytes:
    """Draw a group of bars a metric, a bar a backbone, in %."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(8.0, 3.8), layout="constrained")
    FigureCanvasAgg(drawing)
    axis = drawing.subplots()
    places = np.arange(len(PANELS))
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        heights = [100 * (row.get(metric) or 0.0) for metric in PANELS]
        bars = axis.bar(places + (i - (len(rows) - 1) / 2) * width, heights, width)
        bars.set_label(str(row["backbone"]))
        told = ["-" if row.get(metric) is None else f"{100 * row[metric]:.1f}" for metric in PANELS]
        axis.bar_label(bars, told, fontsize=7, rotation=90, padding=2)
    axis.set_xticks(places, list(PANELS.values()))
    axis.set(ylabel="%", ylim=(0, 115), title=title)
    axis.legend(fontsize=8, ncols=len(rows), loc="upper center")
    return as_png(drawing)
