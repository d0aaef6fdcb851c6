"""What is kept of an SAE that was trained: its tensors, what it says of itself, its curves."""

from collections.abc import Sequence

import torch

from cache.objects import Objects
from cache.reader import TokenCache
from pipeline.artifacts import Artifact, save_artifact
from pipeline.artifacts.documents import SaeDocument, SaeParents, SaeTraining
from pipeline.artifacts.terms import Backbone
from pipeline.configs import FitSaeConfig
from pipeline.drawing.plots import draw_training
from pipeline.fitting.checkpoint import drop_checkpoint
from pipeline.fitting.log import PICTURE, SAE_PANELS, Line
from pipeline.fitting.member import Member
from pipeline.fitting.quality import Quality
from pipeline.inputs import CachedDataset
from pipeline.machine.device import device_name
from pipeline.terminal.progress import say
from spg_core.sae_step import SaeTrainer


def save_sae(
    store: Objects,
    data: CachedDataset,
    config: FitSaeConfig,
    member: Member[SaeTrainer],
    quality: Quality,
) -> Artifact[SaeDocument]:
    """Write an SAE, its curves and how it was trained; its checkpoint goes.

    Raises: StoreError.
    """
    trainer = member.trainer
    sae = trainer.sae()
    if quality.numbers.fvu > 1:
        say(
            f"warning: {member.id} has an FVU of {quality.numbers.fvu:.3g}: it is farther from "
            "the tokens than their mean is; did the learning rate make it diverge?"
        )
    picture = draw_training(member.log.lines, SAE_PANELS, member.id)
    store.replace(f"{member.place}/{PICTURE}", [picture])
    document = SaeDocument(
        id=member.id,
        config=config,
        parents=SaeParents(cache=data.parent),
        backbone=Backbone(name=data.backbone, covers=data.spec.covers()),
        quality=quality.numbers,
        training=SaeTraining(
            path=trainer.path,
            products=str(trainer.way.libraries),
            steps=member.done,
            device=device_name(trainer.device),
            threads=torch.get_num_threads(),
        ),
    )
    tensors = {
        "encoder": sae.encoder,
        "dictionary": sae.dictionary,
        "ever_active": quality.ever_active,
    }
    artifact = save_artifact(store, document, tensors)
    member.saved = member.done
    drop_checkpoint(store, member.place)
    return artifact


def training_remark(lines: Sequence[Line], config: FitSaeConfig, cache: TokenCache) -> str | None:
    """Say what "dead 0" in the log does not mean: that atoms were watched, or helped, at all."""
    n_tokens = cache.n_tokens * config.epochs
    acts = config.auxk > 0 and config.auxk_weight > 0
    if n_tokens < config.dead_after:
        so = "; so AuxK never acted" if acts else ""
        return (
            f'remark: "dead 0" says nothing here: of {n_tokens} tokens in training none could show '
            f"an atom dead, --dead-after is {config.dead_after}{so}"
        )
    if acts and not any(line.get("dead") for line in lines):
        return "remark: no atom died in training, so AuxK never acted"
    return None
