"""What a guides config means: the id, and what a dataset must hold to learn from."""

import numpy as np

from pipeline.artifacts import artifact_id, settings
from pipeline.configs import FitGuidesConfig
from pipeline.inputs import CachedDataset
from spg_core.errors import FitError


def guides_id(sae_id: str, config: FitGuidesConfig) -> str:
    """Name the guides that a config makes over an SAE; controls carry their dictionary's name."""
    stem = sae_id.rpartition("-")[0]
    if config.dictionary != "sae":
        stem = f"{stem}-{config.dictionary}"
    return artifact_id(stem, {"sae": sae_id, "config": settings(config)})


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
