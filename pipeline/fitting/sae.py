"""Fit-sae: train a sparse autoencoder on the cached tokens of the auxiliary dataset."""

from cache.objects import Objects
from pipeline.artifacts import Artifact, is_complete, load_artifact
from pipeline.configs import FitSaeConfig
from pipeline.fitting.sae_settings import sae_id
from pipeline.fitting.saes import fit_saes
from pipeline.inputs import CachedDataset
from pipeline.progress import say


def fit_sae(store: Objects, data: CachedDataset, config: FitSaeConfig) -> Artifact:
    """Train an SAE on every token of a cache, or give the one that the same request made before.

    Killed, it goes on from its last checkpoint and ends with the same bits.

    Raises: ConfigError, FitError, StoreError.
    """
    identifier = sae_id(data, config)
    if is_complete(store, "saes", identifier):
        say(f"SAE {identifier} is there already")
        return load_artifact(store, "saes", identifier)
    made = fit_saes(store, data, [config])[identifier]
    if isinstance(made, Artifact):
        return made
    raise made
