"""Fit-guides: learn two sparse guides over a trained dictionary, from cached tokens and masks."""

import numpy as np

from cache.objects import Objects
from pipeline.artifacts import Artifact, artifact_id, is_complete, load_artifact
from pipeline.configs import FitGuidesConfig, as_document
from pipeline.inputs import CachedDataset
from pipeline.progress import say
from spg_core.errors import FitError


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
    from pipeline.fit_guide_group import fit_guide_group

    made = fit_guide_group(store, [(parent, config)])[identifier]
    if isinstance(made, Artifact):
        return made
    raise made


def guides_id(sae_id: str, config: FitGuidesConfig) -> str:
    """Name the guides that a config makes over an SAE; controls carry their dictionary's name."""
    stem = sae_id.rpartition("-")[0]
    if config.dictionary != "sae":
        stem = f"{stem}-{config.dictionary}"
    settings = {name: value for name, value in as_document(config).items() if name != "device"}
    return artifact_id(stem, {"sae": sae_id, "config": settings})


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
