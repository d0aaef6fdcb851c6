"""Fit-guides: learn two sparse guides over a trained dictionary, from cached tokens and masks."""

import numpy as np
import torch

from cache.objects import Objects
from cache.order import batch_rows
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    folder,
    is_complete,
    load_artifact,
    save_artifact,
)
from pipeline.configs import FitGuidesConfig, as_document
from pipeline.detector import require_same_tokens
from pipeline.device import resolve_device
from pipeline.fit_sae import load_sae
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.progress import bar, say
from pipeline.training import (
    GUIDE_PANELS,
    PICTURE,
    Checkpoint,
    TrainingLog,
    drop_checkpoint,
    load_checkpoint,
    plot_training,
    save_checkpoint,
)
from spg_core.anomaly_map import map_operator
from spg_core.errors import ConfigError, FitError
from spg_core.guide_step import GuideFit, GuideTrainer
from spg_core.guides import ANOMALY, NORMAL, compose_guides, require_nonzero, sparsity_summary

_STEPS_BETWEEN_CHECKPOINTS = 200
_STEPS_BETWEEN_COUNTS = 10


def fit_guides(store: Objects, sae: str, config: FitGuidesConfig) -> Artifact:
    """Fit guides over an SAE (id, prefix, path, `latest`) on the dataset it was fitted on.

    Raises: ArtifactError, ConfigError, FitError, StoreError.
    """
    parent, autoencoder = load_sae(store, sae)
    source = parent.document["parents"]["cache"]
    data = open_dataset(store, source["dataset"], source["backbone"], source["key"])
    require_same_tokens(
        parent.document["backbone"]["covers"], data.spec.covers(), f"SAE {parent.id}", "the cache"
    )
    settings = {name: value for name, value in as_document(config).items() if name != "device"}
    identifier = artifact_id(parent.id.rpartition("-")[0], {"sae": parent.id, "config": settings})
    if is_complete(store, "guides", identifier):
        say(f"guides {identifier} are there already")
        return load_artifact(store, "guides", identifier)
    require_defects(data)
    n_latents = autoencoder.n_latents
    alive = parent.tensors["ever_active"].bool()
    fit = GuideFit(
        dictionary=autoencoder.dictionary,
        alive=alive if config.mask_dead else torch.ones(n_latents, dtype=torch.bool),
        sparsity=config.sparsity,
        topk=config.topk_guides,
        beta=config.beta,
        learning_rate=config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        seed=config.seed,
    )
    trainer = make_trainer([fit], data, config)
    log = _train(store, folder("guides", identifier), data, trainer, config)
    return _save(store, identifier, parent, data, trainer, log, config)


def make_trainer(
    fits: list[GuideFit], data: CachedDataset, config: FitGuidesConfig
) -> GuideTrainer:
    """Set up fits that share each token read; maps are bilinear, without blur."""
    if config.epochs < 1 or config.images_per_step < 1:
        raise ConfigError(
            f"epochs and images-per-step must be 1 or more, got {config.epochs} and "
            f"{config.images_per_step}"
        )
    spec = data.spec
    return GuideTrainer(
        fits,
        operator=map_operator(spec.grid, spec.height, spec.width, sigma=0),
        temperature=config.temperature,
        dice=config.dice,
        ema=config.ema,
        device=resolve_device(config.device),
    )


def require_defects(data: CachedDataset) -> None:
    """Refuse an auxiliary set from which nothing can be learnt about defects.

    Raises: FitError.
    """
    masked = int(np.count_nonzero(data.manifest.table["mask_pixels"].to_numpy()))
    if masked == 0:
        n_defective = int(data.manifest.labels.sum())
        raise FitError(
            f"{data.cache.where} has {n_defective} defective images and none with a defect mask; "
            "guides learn from masked defects, so extract the split that holds them (--split test)"
        )


def _train(
    store: Objects, place: str, data: CachedDataset, trainer: GuideTrainer, config: FitGuidesConfig
) -> TrainingLog:
    """Take all steps of all epochs, from the last checkpoint if there is one."""
    cache = data.cache
    device = resolve_device(config.device)
    per_epoch = -(-cache.n_images // config.images_per_step)
    start = load_checkpoint(store, place)
    if start is not None:
        trainer.load_state({name: tensor.to(device) for name, tensor in start.tensors.items()})
        say(f"going on from step {start.step} of {per_epoch * config.epochs}")
    done = start.step if start is not None else 0
    say(f"{cache.n_images} images x {config.epochs} epochs, {per_epoch * config.epochs} steps")
    log = TrainingLog(store, place, keep=done)
    with bar("Fitting guides", per_epoch * config.epochs) as advance:
        advance(done)
        while done < per_epoch * config.epochs:
            epoch, step = divmod(done, per_epoch)
            for rows in batch_rows(
                cache.n_images,
                batch=config.images_per_step,
                seed=config.seed,
                epoch=epoch,
                start_step=step,
            ):
                tokens = torch.from_numpy(cache.tokens(rows)).to(device)
                masks = torch.from_numpy(cache.masks(rows)).to(device)
                loss = float(trainer.step(tokens, masks)[0])
                done += 1
                line: dict[str, float] = {"step": done, "epoch": epoch, "loss": loss}
                if done % _STEPS_BETWEEN_COUNTS == 0 or done == per_epoch * config.epochs:
                    line |= _counts(trainer)
                log.add(line)
                advance(1, note=f"loss {loss:.3g}")
                if done % _STEPS_BETWEEN_CHECKPOINTS == 0:
                    save_checkpoint(store, place, Checkpoint(done, trainer.state()))
    log.close()
    return log


def _counts(trainer: GuideTrainer) -> dict[str, float]:
    """Count non-zero coefficients and l1 norms of the last and of the averaged coefficients."""
    line = {}
    for prefix, raw in (("", trainer.raw[0].detach()), ("ema_", trainer.ema[0])):
        for name, values in sparsity_summary(trainer.coefficients(0, raw)).items():
            line[f"{prefix}{name}_normal"] = values[NORMAL]
            line[f"{prefix}{name}_anomaly"] = values[ANOMALY]
    return line


def _save(
    store: Objects,
    identifier: str,
    parent: Artifact,
    data: CachedDataset,
    trainer: GuideTrainer,
    log: TrainingLog,
    config: FitGuidesConfig,
) -> Artifact:
    """Write the guides, both averaged and last, with their coefficients and the curves."""
    dictionary = trainer.fits[0].dictionary
    coefficients = {
        "raw": trainer.coefficients(0, trainer.raw[0].detach()).cpu(),
        "ema": trainer.coefficients(0, trainer.ema[0]).cpu(),
    }
    for name, pair in coefficients.items():
        require_nonzero(pair, name.upper() if name == "ema" else "after the last step")
    place = folder("guides", identifier)
    store.replace(f"{place}/{PICTURE}", [plot_training(log.lines, GUIDE_PANELS, identifier)])
    document = {
        "config": as_document(config),
        "parents": {"cache": data.parent, "sae": parent.id},
        "backbone": parent.document["backbone"],
        "sparsity": {name: sparsity_summary(pair) for name, pair in coefficients.items()},
        "training": {
            "steps": trainer.n_steps,
            # EMA keeps this share of its start; with few steps its coefficients stay dense
            "ema_start_share": config.ema ** max(trainer.n_steps - 1, 0),
        },
    }
    tensors = {}
    for name, pair in coefficients.items():
        tensors[f"coefficients_{name}"] = pair
        tensors[f"guides_{name}"] = compose_guides(pair, dictionary)
    artifact = save_artifact(store, "guides", identifier, document, tensors)
    drop_checkpoint(store, place)
    return artifact
