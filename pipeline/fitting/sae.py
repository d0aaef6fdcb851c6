"""Fit-sae: train a sparse autoencoder on the cached tokens of the auxiliary dataset."""

from cache.objects import Objects
from pipeline.artifacts import Artifact, find_artifact, make_latest
from pipeline.artifacts.documents import SaeDocument
from pipeline.configs import FitSaeConfig
from pipeline.fitting.sae_settings import sae_id
from pipeline.fitting.saes import fit_saes
from pipeline.inputs import CachedDataset
from pipeline.progress import say
from spg_core.errors import SpgError


def fit_sae(
    store: Objects, data: CachedDataset, config: FitSaeConfig, *, direct: bool = True
) -> Artifact[SaeDocument]:
    """Train an SAE on every token of a cache, or give the one that the same request made before.

    Killed, it goes on from its last checkpoint and ends with the same bits. `latest` means it from
    then on, unless it is only a step (`direct`) of something else.

    Raises: ConfigError, FitError, StoreError.
    """
    identifier = sae_id(data, config)
    made: Artifact[SaeDocument] | SpgError | None = find_artifact(store, "saes", identifier)
    if made is None:
        made = fit_saes(store, data, [config])[identifier]
    else:
        say(f"SAE {identifier} is there already")
    if isinstance(made, SpgError):
        raise made
    if direct:
        make_latest(made.place, made.id)
    return made
