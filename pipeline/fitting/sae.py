"""Fit-sae: train a sparse autoencoder on the cached tokens of the auxiliary dataset."""

from cache.objects import Objects
from pipeline.artifacts import Artifact, is_complete, load_artifact, make_latest
from pipeline.configs import FitSaeConfig
from pipeline.fitting.sae_settings import sae_id
from pipeline.fitting.saes import fit_saes
from pipeline.inputs import CachedDataset
from pipeline.progress import say
from spg_core.errors import SpgError


def fit_sae(
    store: Objects, data: CachedDataset, config: FitSaeConfig, *, direct: bool = True
) -> Artifact:
    """Train an SAE on every token of a cache, or give the one that the same request made before.

    Killed, it goes on from its last checkpoint and ends with the same bits. `latest` means it from
    then on, unless it is only a step (`direct`) of something else.

    Raises: ConfigError, FitError, StoreError.
    """
    identifier = sae_id(data, config)
    if is_complete(store, "saes", identifier):
        say(f"SAE {identifier} is there already")
        made: Artifact | SpgError = load_artifact(store, "saes", identifier)
    else:
        made = fit_saes(store, data, [config])[identifier]
    if isinstance(made, SpgError):
        raise made
    if direct:
        make_latest(store, made)
    return made
