"""What a stage config means for SAE training: ids, steps, batches; and how a stored SAE is read."""

from cache.objects import Objects
from cache.reader import TokenCache
from cache.stream import steps_per_epoch
from pipeline.artifacts import Artifact, artifact_id, load_artifact, settings
from pipeline.artifacts.documents import SaeDocument
from pipeline.backbones.spec import slug
from pipeline.configs import FitSaeConfig
from pipeline.inputs import CachedDataset
from spg_core.sae import Sae


def sae_id(data: CachedDataset, config: FitSaeConfig) -> str:
    """Name the SAE that a config makes of a cache; the device is no part of it."""
    stem = f"{data.dataset}-{slug(data.backbone)}-c{config.width}-k{config.k}"
    return artifact_id(stem, {"cache": data.cache.key, "config": settings(config)})


def batch_size(cache: TokenCache, config: FitSaeConfig) -> int:
    """Give a batch in the unit of its order: images, or as many tokens as they have."""
    return config.images_per_step * (1 if config.order == "images" else cache.tokens_per_image)


def epoch_steps(cache: TokenCache, config: FitSaeConfig) -> int:
    """Give the steps of one epoch."""
    return steps_per_epoch(cache, config.order, batch_size(cache, config))


def load_sae(store: Objects, reference: str) -> tuple[Artifact[SaeDocument], Sae]:
    """Read an SAE artifact and the SAE in it. Raises: as `load_artifact`, ConfigError."""
    artifact = load_artifact(store, "saes", reference)
    config = artifact.document.config
    sae = Sae(
        artifact.tensors["encoder"],
        artifact.tensors["dictionary"],
        k=config.k,
        sparsifier=config.sparsifier,
        clamp=config.clamp,
    )
    return artifact, sae
