"""The figures by name."""

from cache.objects import Objects
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.reproduce.fig2 import fig2
from pipeline.reproduce.fig3 import fig3
from pipeline.reproduce.fig4 import fig4
from pipeline.reproduce.fig_s1 import fig_s1
from pipeline.reproduce.figure import Figure
from spg_core.errors import ConfigError


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
