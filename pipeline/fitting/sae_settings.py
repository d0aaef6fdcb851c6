"""What a stage config means for SAE training: ids, steps, batches; and how a stored SAE is read."""

from typing import Any

from cache.objects import Objects
from cache.reader import TokenCache
from cache.stream import steps_per_epoch
from pipeline.artifacts import Artifact, artifact_id, load_artifact
from pipeline.backbones.spec import slug
from pipeline.configs import FitSaeConfig, as_document
from pipeline.inputs import CachedDataset
from spg_core.errors import ConfigError
from spg_core.sae import Sae
from spg_core.sae_step import SaeStepConfig


def sae_id(data: CachedDataset, config: FitSaeConfig) -> str:
    """Name the SAE that a config makes of a cache; the device is no part of it."""
    stem = f"{data.dataset}-{slug(data.backbone)}-c{config.width}-k{config.k}"
    settings = {name: value for name, value in as_document(config).items() if name != "device"}
    return artifact_id(stem, {"cache": data.cache.key, "config": settings})


def step_config(config: FitSaeConfig, d_model: int) -> SaeStepConfig:
    """Give the training step's part of a stage config. Raises: ConfigError."""
    return SaeStepConfig(
        n_latents=config.width,
        d_model=d_model,
        k=config.k,
        sparsifier=one_of(config.sparsifier, "topk", "relu"),
        l1_coefficient=config.l1,
        reduction=one_of(config.loss, "mean", "sum"),
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


def one_of(value: str, *allowed: str) -> Any:
    """Give a value back if it is allowed. Raises: ConfigError."""
    if value not in allowed:
        raise ConfigError(f"{value!r} is not one of {', '.join(allowed)}")
    return value


def batch_size(cache: TokenCache, config: FitSaeConfig) -> int:
    """Give a batch in the unit of its order: images, or as many tokens as they have."""
    order = one_of(config.order, "images", "tokens")
    return config.images_per_step * (1 if order == "images" else cache.tokens_per_image)


def epoch_steps(cache: TokenCache, config: FitSaeConfig) -> int:
    """Give the steps of one epoch. Raises: ConfigError."""
    order = one_of(config.order, "images", "tokens")
    return steps_per_epoch(cache, order, batch_size(cache, config))


def load_sae(store: Objects, reference: str) -> tuple[Artifact, Sae]:
    """Read an SAE artifact and the SAE in it. Raises: as `load_artifact`, ConfigError."""
    artifact = load_artifact(store, "saes", reference)
    config = artifact.document["config"]
    sae = Sae(
        artifact.tensors["encoder"],
        artifact.tensors["dictionary"],
        k=int(config["k"]),
        sparsifier=one_of(config["sparsifier"], "topk", "relu"),
        clamp=bool(config["clamp"]),
    )
    return artifact, sae
