"""Fit-guides: learn two sparse guides over a trained dictionary, from cached tokens and masks."""

from cache.objects import Objects
from pipeline.artifacts import Artifact, find_artifact, load_artifact, make_latest
from pipeline.artifacts.documents import GuidesDocument
from pipeline.configs import FitGuidesConfig
from pipeline.fitting.guide_group import fit_guide_group
from pipeline.fitting.guide_settings import guides_id
from pipeline.progress import say
from spg_core.errors import SpgError


def fit_guides(
    store: Objects, sae: str, config: FitGuidesConfig, *, direct: bool = True
) -> Artifact[GuidesDocument]:
    """Fit guides over an SAE (id, prefix, path, `latest`) on the dataset it was fitted on.

    Killed, it goes on from its last checkpoint and ends with the same bits. `latest` means them
    from then on, unless they are a control or only a step (`direct`) of something else.

    Raises: ArtifactError, ConfigError, FitError, StoreError.
    """
    parent = load_artifact(store, "saes", sae)
    identifier = guides_id(parent.id, config)
    made: Artifact[GuidesDocument] | SpgError | None = find_artifact(store, "guides", identifier)
    if made is None:
        made = fit_guide_group(store, [(parent, config)])[identifier]
    else:
        say(f"guides {identifier} are there already")
    if isinstance(made, SpgError):
        raise made
    if direct and config.dictionary == "sae":
        make_latest(made.place, made.id)
    return made
