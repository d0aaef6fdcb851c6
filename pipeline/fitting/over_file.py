"""Fit-guides over an SAE that another program made."""

import re

import torch
from torch import Tensor

from cache.objects import Objects
from pipeline.artifacts import Artifact, artifact_id, make_once, settings
from pipeline.artifacts.documents import GuidesDocument
from pipeline.artifacts.guides import GuidesParents
from pipeline.artifacts.terms import Backbone
from pipeline.backbones.spec import slug
from pipeline.configs import FitGuidesConfig
from pipeline.fitting.dictionaries import AtomSource
from pipeline.fitting.guides import GuideRequest, Results, fit_requests, latest_may_mean
from pipeline.fitting.tokens import TokenSource, require_targets
from pipeline.inputs import CachedDataset
from pipeline.interchange.foreign import ForeignSae, read_sae
from pipeline.interchange.rules import Rule
from pipeline.machine.device import by_halves, resolve_device
from pipeline.terminal.progress import bar, say
from pipeline.tracking import Kind
from spg_core.errors import ArtifactError
from spg_core.sae_loss import fvu, squared_error
from spg_core.sae_quality import TokenSums

_BATCH_IMAGES = 16


def fit_guides_over_file(
    store: Objects,
    data: CachedDataset,
    path: str,
    config: FitGuidesConfig,
    name: str | None = None,
    track: Kind | None = None,
) -> Artifact[GuidesDocument]:
    """Fit guides over the atoms of an SAE's file, brought to length 1, on a cached dataset.

    Atoms that its own encoder never activates on the dataset are held at 0, as those of an SAE of
    the store are, where the file tells how it encodes. The guides name the file by its digest.

    Raises: ArtifactError, ConfigError, FitError, StoreError.
    """
    sae = read_sae(path, data.cache.d_model)
    identifier = _guides_id(sae, data, config)

    def fit() -> Results:
        require_targets(data, config)
        store.check_writable()
        parents = GuidesParents(cache=data.parent, file=sae.file)
        backbone = Backbone(name=data.spec.name, covers=data.spec.covers())
        over = AtomSource(parents, backbone, sae.atoms, _alive(sae, data, config))
        request = GuideRequest(identifier, over, data, config)
        with bar("Fitting guides", request.n_steps) as advance:
            return fit_requests(store, [request], advance, track)

    direct = latest_may_mean(config)
    return make_once(store, GuidesDocument, identifier, fit, direct=direct, name=name)


def _guides_id(sae: ForeignSae, data: CachedDataset, config: FitGuidesConfig) -> str:
    called = re.sub(r"[^A-Za-z0-9]+", "-", sae.file.name.rpartition(".")[0])[:24].strip("-")
    stem = f"{data.dataset}-{slug(data.backbone)}-c{len(sae.atoms)}-{called or 'file'}"
    identity = {
        "file": sae.file.sha256,
        "rule": sae.file.rule,
        "cache": data.cache.key,
        "config": settings(config),
    }
    return artifact_id(stem, identity)


def _alive(sae: ForeignSae, data: CachedDataset, config: FitGuidesConfig) -> Tensor:
    """Tell which atoms guides may use: `(C,)` bool. Raises: ArtifactError where none is left."""
    alive: Tensor = sae.atoms.any(1)
    if sae.rule is None:
        say(f"{sae.file.name} does not tell how it encodes: all of its atoms may be used")
    else:
        active, unexplained = _measure(sae.rule, data, resolve_device(config.device))
        alive = alive & active if config.mask_dead else alive
        _say_fvu(sae.file.name, data, unexplained)
    if not bool(alive.any()):
        raise ArtifactError(
            f"no token of {data.dataset} activates an atom of {sae.file.name}; was the SAE made "
            "for other tokens? --no-mask-dead uses all atoms"
        )
    say(f"{int(alive.sum())} of {len(alive)} atoms of {sae.file.name} may be used")
    return alive


@torch.no_grad()
def _measure(rule: Rule, data: CachedDataset, device: torch.device) -> tuple[Tensor, float]:
    """Tell which atoms some token activates, `(C,)` bool, and the FVU over all of them."""
    cache, moved = data.cache, rule.to(device)
    source = TokenSource(cache, device)
    active = torch.zeros(len(rule.bias), dtype=torch.bool, device=device)
    error = torch.zeros((), dtype=torch.float64, device=device)
    spread = TokenSums(cache.d_model, device)
    batch = _BATCH_IMAGES * cache.tokens_per_image
    for tokens in source.batches("sequential", batch, seed=0, epoch=0):
        spread.add(tokens)
        images = tokens.view(-1, cache.tokens_per_image, cache.d_model)

        def take(here: slice, images: Tensor = images) -> None:
            values = images[here].flatten(0, 1)
            latents = moved.latents(values)
            lost, fired = squared_error(values - moved.decode(latents)), (latents != 0).any(0)
            # from here on nothing can lack a GPU's memory, so no token counts twice
            error.add_(lost)
            active.logical_or_(fired)

        by_halves("measuring the SAE", len(images), len(images), device, take)
    return active.cpu(), float(fvu(error, spread.variation))


def _say_fvu(name: str, data: CachedDataset, unexplained: float) -> None:
    """Say how well the SAE explains these tokens, and aloud where their mean does better."""
    told = f"{name} leaves {unexplained:.3g} of the variance of {data.dataset}'s tokens unexplained"
    if not unexplained <= 1:  # not >: a NaN must be told, too
        told = f"remark: {told}, more than their mean would; was it made for another layer or norm?"
    say(told)
