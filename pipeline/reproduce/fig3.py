"""Fig. 3: image metrics over the temperature tau of pooling, from one pass over the target."""

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from cache.objects import Objects
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.device import resolve_device
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.progress import bar
from pipeline.reproduce.figure import Figure, Row, draw_lines
from pipeline.reproduce.table1 import stage_configs
from pipeline.scoring.blocks import compute_maps, pool
from pipeline.scoring.detector import make_detector
from pipeline.sweep.grid import split_values
from spg_core.errors import ConfigError
from spg_core.image_metrics import image_metrics
from spg_core.metrics import mean_metrics

_MAXIMUM = 0.0


def fig3(store: Objects, config: ReproduceConfig, varied: FigureConfig) -> Figure:
    """Fit what is missing, and pool every map at every tau and by its maximum.

    Raises: ConfigError, and as `fit_sae` and `fit_guides`.
    """
    taus = split_values("taus", varied.taus, 1.0)
    if not all(0 < tau < float("inf") for tau in taus):
        raise ConfigError(f"taus must be positive and finite, got {varied.taus}")
    stages = stage_configs(config)
    aux = open_dataset(store, config.aux, config.backbone, config.aux_key)
    guides = fit_guides(store, fit_sae(store, aux, stages.sae).id, stages.guides)
    target = open_dataset(store, config.target, config.backbone, config.target_key)
    detector = make_detector(guides, stages.score).to(resolve_device(config.device))
    labels = target.manifest.labels
    scores: dict[float, list[tuple[NDArray[np.float32], NDArray[np.int8]]]] = {}
    with bar("Pooling at every tau", target.cache.n_images) as advance:
        for category in target.manifest.categories:
            rows = target.manifest.rows_of(category)
            maps = compute_maps(detector, target, rows)
            advance(len(rows))
            for tau in (_MAXIMUM, *taus):
                scores.setdefault(tau, []).append((pool(maps, tau), labels[rows]))
    rows_by_tau = {tau: _row(tau, categories) for tau, categories in scores.items()}
    points = [rows_by_tau[tau] for tau in taus]
    maximum = rows_by_tau[_MAXIMUM]
    title = f"{config.aux} -> {config.target}, {config.backbone}"
    picture = draw_lines(
        points, "tau", "tau", ["image_auroc", "image_ap"], title, {"maximum (tau -> 0)": maximum}
    )
    return Figure("fig3", [*points, maximum], picture)


def _row(tau: float, categories: list[tuple[NDArray[np.float32], NDArray[np.int8]]]) -> Row:
    """Give the mean over categories of image metrics; tau 0 is the maximum."""
    mean = mean_metrics([image_metrics(scores, labels) for scores, labels in categories])
    values = asdict(mean)
    return {"tau": tau} | {f"image_{name}": values[name] for name in ("auroc", "ap", "f1max")}
