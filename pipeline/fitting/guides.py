"""Fit-guides: learn two sparse guides over a trained dictionary, from cached tokens and masks."""

from cache.objects import Objects
from pipeline.artifacts import Artifact, is_complete, load_artifact
from pipeline.configs import FitGuidesConfig
from pipeline.fitting.guide_group import fit_guide_group
from pipeline.fitting.guide_settings import guides_id
from pipeline.progress import say


def fit_guides(store: Objects, sae: str, config: FitGuidesConfig) -> Artifact:
    """Fit guides over an SAE (id, prefix, path, `latest`) on the dataset it was fitted on.

    Killed, it goes on from its last checkpoint and ends with the same bits.

    Raises: ArtifactError, ConfigError, FitError, StoreError.
    """
    parent = load_artifact(store, "saes", sae)
    identifier = guides_id(parent.id, config)
    if is_complete(store, "guides", identifier):
        say(f"guides {identifier} are there already")
        return load_artifact(store, "guides", identifier)
    made = fit_guide_group(store, [(parent, config)])[identifier]
    if isinstance(made, Artifact):
        return made
    raise made
