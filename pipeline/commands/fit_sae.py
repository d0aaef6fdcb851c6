"""`spg-pipe fit-sae`."""

from typing import TYPE_CHECKING

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import FitSaeConfig, FitSaeSource

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.artifacts import Artifact
    from pipeline.artifacts.documents import SaeDocument


def fit_sae(
    store: "AnyStore", source: FitSaeSource, config: FitSaeConfig
) -> "Artifact[SaeDocument]":
    """Train a sparse autoencoder on cached tokens. Killed, it resumes from its last checkpoint."""
    from cache.store import open_store
    from pipeline.fitting.sae import fit_sae as run
    from pipeline.inputs import open_dataset

    objects = open_store(store)
    return run(objects, open_dataset(objects, source.dataset, source.backbone, source.key), config)


def show_sae(made: "Artifact[SaeDocument]", as_json: bool) -> None:
    """Print how well it reconstructs, and where it is."""
    quality, width = made.document.quality, made.document.config.width
    text = (
        f"{made.id}: FVU {quality.fvu:.4f}, L0 {quality.l0:.1f}, "
        f"{quality.dead_atoms} of {width} atoms dead\n{made.path}"
    )
    show({"id": made.id, "path": made.path, "quality": vars(quality)}, as_json, text)


app = alone("fit-sae", from_config(fit_sae, show_sae))
