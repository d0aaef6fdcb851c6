"""What guides and scores will take: a step and a few images of each shape, done on this machine."""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch

from cache.objects import Objects
from pipeline.configs import FitGuidesConfig, ScoreConfig
from pipeline.detection.detector import detector_of
from pipeline.detection.parts import GuidesPart
from pipeline.detection.values import Rows
from pipeline.fitting.dictionaries import GuideDictionary, make_trainer, random_atoms
from pipeline.fitting.tokens import guide_epoch_steps
from pipeline.inputs import CachedDataset
from pipeline.machine.device import within_memory
from pipeline.scoring.blocks import MapPlan, open_scoring
from pipeline.scoring.categories import finish_category, submit_category, submit_inputs
from pipeline.workers.work import Here
from spg_core.errors import ConfigError, FitError
from spg_core.guide_step import guide_batch, label_batch

_TRIALS = 3
_TRIAL_IMAGES = 16


def guide_seconds(
    aux: CachedDataset, wanted: Sequence[tuple[int, FitGuidesConfig]], device: torch.device
) -> float:
    """Give seconds of fitting guides; each wanted has the width of its dictionary and a config.

    Fits that see the same batches share what is made of them.
    """
    measured: dict[tuple[int, FitGuidesConfig], tuple[float, float]] = {}
    batches: dict[tuple[str, int, int, int], float] = {}
    seconds = 0.0
    for width, config in wanted:
        n_steps = guide_epoch_steps(aux.cache, config) * config.epochs
        shape = (width, replace(config, seed=0, epochs=1))
        if shape not in measured:
            measured[shape] = _guide_step(aux, width, config, device)
        a_batch, a_step = measured[shape]
        batches[config.on, config.seed, config.images_per_step, config.epochs] = a_batch * n_steps
        seconds += a_step * n_steps
    return seconds + sum(batches.values())


def _guide_step(
    aux: CachedDataset, width: int, config: FitGuidesConfig, device: torch.device
) -> tuple[float, float]:
    """Give seconds of preparing a batch and of a step on it; 0 of what cannot be, or not fit."""
    cache, spec = aux.cache, aux.spec
    n_images = min(config.images_per_step, cache.n_images)
    atoms = random_atoms(width, cache.d_model, seed=0)
    dictionary = GuideDictionary(atoms, torch.ones(width, dtype=torch.bool))
    patches = () if config.on == "cls" else (cache.tokens_per_image,)
    tokens = torch.randn(n_images, *patches, cache.d_model, device=device)
    truth = torch.zeros(n_images, *(() if config.on == "cls" else (spec.height, spec.width)))
    truth[::2] = 1
    truth = truth.to(device)
    seconds = [0.0, 0.0]
    try:
        with within_memory("a trial"):
            trainer = make_trainer(dictionary, aux, config, device, compiler="none")
            for trial in range(1 + _TRIALS):
                start = perf_counter()
                if config.on == "cls":
                    batch = label_batch(tokens, truth)
                else:
                    batch = guide_batch(trainer.operator, tokens, truth)
                made = perf_counter()
                float(trainer.step_on(batch))  # waits for all that was launched before
                if trial:  # the first warms up
                    seconds[0] += made - start
                    seconds[1] += perf_counter() - made
    except (ConfigError, FitError):  # it fails by itself when its turn comes
        return 0.0, 0.0
    return seconds[0] / _TRIALS, seconds[1] / _TRIALS


def score_seconds(
    store: Objects,
    target: CachedDataset,
    wanted: Sequence[tuple[str, ScoreConfig]],
    device: torch.device,
) -> float:
    """Give seconds of scoring; each wanted has the id of its guides and a config.

    Some images of the target go through all of it, by guides drawn by chance; those that differ in
    pooling or AUPRO alone share their maps.
    """
    shared = {(one, c.coefficients, c.sigma, c.image_score): c for one, c in wanted}
    by_sigma: dict[float, float] = {}
    for config in shared.values():
        if config.sigma not in by_sigma:
            by_sigma[config.sigma] = _image_seconds(store, target, config, device)
    return sum(by_sigma[one.sigma] * target.cache.n_images for one in shared.values())


def _image_seconds(
    store: Objects, target: CachedDataset, config: ScoreConfig, device: torch.device
) -> float:
    """Give seconds an image from tokens to metrics."""
    rows = _some(target)
    guides = random_atoms(2, target.cache.d_model, seed=0)
    part = GuidesPart("trial", target.spec, guides, temperature=0.07)
    config = replace(config, image_score="map", pool="lse", tau=0.0)
    detector = detector_of("trial", [part], config)
    plan = MapPlan(detector, (config.pooling,), (config.aupro,))
    workers = Here(open_scoring(store, target, [plan], str(device)))
    for _ in range(2):  # the first warms up
        start = perf_counter()
        inputs = submit_inputs(workers, target, "trial", rows)
        pending = submit_category(workers, inputs, 0)
        finish_category(workers, target, plan, [config], pending)
    return (perf_counter() - start) / len(rows)


def _some(target: CachedDataset) -> Rows:
    """Choose a few images, normal and anomalous ones where there are both."""
    labels = target.manifest.labels
    kinds = [np.flatnonzero(labels == label)[: _TRIAL_IMAGES // 2] for label in (0, 1)]
    return np.sort(np.concatenate(kinds))
