"""Fit-sae: train a sparse autoencoder on the cached tokens of the auxiliary dataset."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.objects import Objects
from cache.reader import TokenCache
from cache.stream import steps_per_epoch, token_batches
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    folder,
    is_complete,
    load_artifact,
    save_artifact,
)
from pipeline.backbone_spec import slug
from pipeline.configs import FitSaeConfig, as_document
from pipeline.device import resolve_device
from pipeline.inputs import CachedDataset
from pipeline.progress import bar, human_seconds, say
from pipeline.training import (
    PICTURE,
    SAE_PANELS,
    Checkpoint,
    TrainingLog,
    drop_checkpoint,
    load_checkpoint,
    plot_training,
    save_checkpoint,
)
from spg_core.errors import ConfigError
from spg_core.sae import Sae, decode, encode
from spg_core.sae_step import SaeStepConfig, SaeTrainer

_SECONDS_BETWEEN_CHECKPOINTS = 60.0


def fit_sae(store: Objects, data: CachedDataset, config: FitSaeConfig) -> Artifact:
    """Train an SAE on every token of a cache, or give the one that the same request made before.

    Killed, it goes on from its last checkpoint and ends with the same bits.

    Raises: ConfigError, FitError, StoreError.
    """
    stem = f"{data.dataset}-{slug(data.backbone)}-c{config.width}-k{config.k}"
    settings = {name: value for name, value in as_document(config).items() if name != "device"}
    identifier = artifact_id(stem, {"cache": data.cache.key, "config": settings})
    if is_complete(store, "saes", identifier):
        say(f"SAE {identifier} is there already")
        return load_artifact(store, "saes", identifier)
    trainer = SaeTrainer(
        step_config(config, data.cache.d_model), str(resolve_device(config.device))
    )
    log = train(store, folder("saes", identifier), data.cache, trainer, config)
    sae = trainer.sae()
    quality, ever_active = evaluate(sae, data.cache, config, trainer.device)
    picture = plot_training(log.lines, SAE_PANELS, identifier)
    store.replace(f"{folder('saes', identifier)}/{PICTURE}", [picture])
    document = {
        "config": as_document(config),
        "parents": {"cache": data.parent},
        "backbone": {"name": data.backbone, "covers": data.spec.covers()},
        "quality": quality,
        "training": {"path": trainer.path, "steps": len(log.lines)},
    }
    tensors = {"encoder": sae.encoder, "dictionary": sae.dictionary, "ever_active": ever_active}
    artifact = save_artifact(store, "saes", identifier, document, tensors)
    drop_checkpoint(store, folder("saes", identifier))
    return artifact


def step_config(config: FitSaeConfig, d_model: int) -> SaeStepConfig:
    """Give the training step's part of a stage config. Raises: ConfigError."""
    if config.epochs < 1 or config.images_per_step < 1:
        raise ConfigError(
            f"epochs and images-per-step must be 1 or more, got {config.epochs} and "
            f"{config.images_per_step}"
        )
    return SaeStepConfig(
        n_latents=config.width,
        d_model=d_model,
        k=config.k,
        sparsifier=_one_of(config.sparsifier, "topk", "relu"),
        l1_coefficient=config.l1,
        reduction=_one_of(config.loss, "mean", "sum"),
        auxk=config.auxk,
        auxk_coefficient=config.auxk_weight,
        dead_after_tokens=config.dead_after,
        dead_threshold=config.dead_threshold,
        unit_norm=config.unit_norm,
        tied_init=config.tied_init,
        clamp=config.clamp,
        learning_rate=config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        seed=config.seed,
    )


def _one_of(value: str, *allowed: str) -> Any:
    if value not in allowed:
        raise ConfigError(f"{value!r} is not one of {', '.join(allowed)}")
    return value


def train(
    store: Objects, place: str, cache: TokenCache, trainer: SaeTrainer, config: FitSaeConfig
) -> TrainingLog:
    """Take all steps of all epochs, from the last checkpoint if there is one."""
    per_epoch = steps_per_epoch(cache, _order(config), _batch(cache, config))
    start = load_checkpoint(store, place)
    if start is not None:
        trainer.load_state(start.tensors)
        say(f"going on from step {start.step} of {per_epoch * config.epochs}")
    done = start.step if start is not None else 0
    say(
        f"{cache.n_tokens} tokens of {cache.d_model} x {config.epochs} epochs, "
        f"{per_epoch * config.epochs} steps on {trainer.device} ({trainer.path})"
    )
    log = TrainingLog(store, place, keep=done)
    saved = began = perf_counter()
    with bar("Fitting SAE", per_epoch * config.epochs) as advance:
        advance(done)
        for epoch, batch in _batches(cache, config, done, per_epoch):
            stats = trainer.step(torch.from_numpy(batch))
            done += 1
            line = {
                "step": done,
                "epoch": epoch,
                "loss": float(stats.loss),
                "fvu": float(stats.fvu),
                "l0": float(stats.l0),
                "dead": int(stats.n_dead),
            }
            log.add(line)
            advance(1, note=f"loss {line['loss']:.3g}  FVU {line['fvu']:.3f}  dead {line['dead']}")
            if perf_counter() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                save_checkpoint(store, place, Checkpoint(done, trainer.state()))
                saved = perf_counter()
    log.close()
    say(f"trained in {human_seconds(perf_counter() - began)}")
    return log


def _batches(
    cache: TokenCache, config: FitSaeConfig, done: int, per_epoch: int
) -> Iterator[tuple[int, NDArray[np.float16]]]:
    """Yield (epoch, tokens `(n, d)` float16) from step `done` of the whole run on."""
    first = done // per_epoch
    for epoch in range(first, config.epochs):
        batches = token_batches(
            cache,
            order=_order(config),
            batch=_batch(cache, config),
            seed=config.seed,
            epoch=epoch,
            start_step=done - first * per_epoch if epoch == first else 0,
        )
        for batch in batches:
            yield epoch, batch


def _order(config: FitSaeConfig) -> Any:
    return _one_of(config.order, "images", "tokens")


def _batch(cache: TokenCache, config: FitSaeConfig) -> int:
    """Give a batch in the unit of its order: images, or as many tokens as they have."""
    per_image = 1 if config.order == "images" else cache.tokens_per_image
    return config.images_per_step * per_image


@torch.no_grad()
def evaluate(
    sae: Sae, cache: TokenCache, config: FitSaeConfig, device: torch.device
) -> tuple[dict[str, float], Tensor]:
    """Measure a trained SAE over the whole cache: FVU, L0, dead atoms; and which atoms ever fired.

    Returns: the numbers, and `(n_latents,)` bool, True where an activation passed the threshold.
    """
    error = squares = nonzero = 0.0
    total = torch.zeros(sae.d_model, dtype=torch.float64, device=device)
    active = torch.zeros(sae.n_latents, dtype=torch.bool, device=device)
    for batch in token_batches(
        cache, order="sequential", batch=16 * cache.tokens_per_image, seed=0, epoch=0
    ):
        tokens = torch.from_numpy(batch).to(device).float()
        latents = encode(sae, tokens)
        error += float((tokens - decode(sae, latents)).double().square().sum())
        squares += float(tokens.double().square().sum())
        total += tokens.double().sum(0)
        nonzero += float((latents.values != 0).sum())
        active[latents.indices[latents.values > config.dead_threshold]] = True
    spread = squares - float(total.square().sum()) / cache.n_tokens
    quality = {
        "fvu": error / spread if spread > 0 else 0.0,
        "l0": nonzero / cache.n_tokens,
        "dead_atoms": int((~active).sum()),
    }
    return quality, active.cpu()


def load_sae(store: Objects, reference: str) -> tuple[Artifact, Sae]:
    """Read an SAE artifact and the SAE in it. Raises: as `load_artifact`, ConfigError."""
    artifact = load_artifact(store, "saes", reference)
    config = artifact.document["config"]
    sae = Sae(
        artifact.tensors["encoder"],
        artifact.tensors["dictionary"],
        k=int(config["k"]),
        sparsifier=_one_of(config["sparsifier"], "topk", "relu"),
        clamp=bool(config["clamp"]),
    )
    return artifact, sae
