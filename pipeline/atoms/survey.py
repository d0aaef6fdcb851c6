"""Survey many atoms in one pass over a cache: how often, where, and their strongest patches.

A atoms, G groups of images (a category and a defect), P patches an image, K patches kept an atom.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cache.objects import Objects
from pipeline.artifacts import load_artifact
from pipeline.atoms.find import (
    PAIR,
    groups_of,
    guide_names,
    images_at_once,
    on_device,
    parents_of,
    strongest,
    warn_of_start,
)
from pipeline.configs import AtomsConfig
from pipeline.fitting.sae import load_sae
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.machine.device import by_halves, resolve_device
from pipeline.report.data import GuideName
from pipeline.terminal.progress import bar
from spg_core.atom_counts import (
    DEFECT,
    UNKNOWN,
    AtomCounts,
    StrongestPatches,
    active_entries,
    marked_patches,
)
from spg_core.sae import Sae


@dataclass(frozen=True)
class Survey:
    """What one pass over a cache tells of some atoms of an SAE."""

    of: str
    """What they are the atoms of: `guides ID` or `SAE ID`."""
    data: CachedDataset
    atoms: NDArray[np.int64]
    """`(A,)` ascending."""
    coefficients: Mapping[GuideName, NDArray[np.float64]]
    """Of the guides asked for, `(A,)`; none for a whole SAE."""
    groups: list[tuple[str, str]]
    """Category and defect of each group."""
    counts: AtomCounts
    strongest: StrongestPatches


def survey_guides(store: Objects, guides: str, config: AtomsConfig) -> Survey:
    """Survey the atoms whose coefficient is above 0 in guides.

    Raises: NotInStore, IncompleteCache, CorruptStore, ArtifactError; MetricError for a GPU on which
        one image does not fit.
    """
    artifact = load_artifact(store, "guides", guides)
    source, sae_id = parents_of(artifact)
    warn_of_start(artifact, config)
    data = open_dataset(store, source.dataset, source.backbone, source.key)
    _, sae = load_sae(store, sae_id)
    pair = artifact.tensors[f"coefficients_{config.coefficients}"]
    wanted = {name: pair[PAIR[name]] for name in guide_names(config)}
    top = sae.n_latents if config.top is None else config.top
    atoms = torch.unique(torch.cat([strongest(one, top) for one in wanted.values()]))
    values = {name: one[atoms].double().numpy() for name, one in wanted.items()}
    return _survey(f"guides {artifact.id}", data, sae, atoms, values, config)


def survey_sae(store: Objects, reference: str, config: AtomsConfig) -> Survey:
    """Survey all atoms of an SAE over the tokens it was fitted on. Raises: as `survey_guides`."""
    artifact, sae = load_sae(store, reference)
    source = artifact.document.parents.cache
    data = open_dataset(store, source.dataset, source.backbone, source.key)
    return _survey(f"SAE {artifact.id}", data, sae, torch.arange(sae.n_latents), {}, config)


@torch.inference_mode()
def _survey(
    of: str,
    data: CachedDataset,
    sae: Sae,
    atoms: torch.Tensor,
    coefficients: Mapping[GuideName, NDArray[np.float64]],
    config: AtomsConfig,
) -> Survey:
    device = resolve_device(config.device)
    sae, wanted = on_device(sae, device), atoms.to(device)
    n_images, n_patches = data.cache.n_images, data.cache.tokens_per_image
    (group_of, groups), states_of = groups_of(data), _patch_states(data)
    counts = AtomCounts(len(atoms), len(groups))
    top = StrongestPatches(len(atoms), keep=config.patches, one_per_image=config.one_per_image)

    def take(here: slice) -> None:
        rows = np.arange(here.start, here.stop)
        tokens = torch.from_numpy(data.cache.tokens(rows)).to(device).float()
        found = active_entries(sae, tokens.flatten(0, 1), wanted)
        # from here on nothing can lack a GPU's memory, so no image is counted twice
        counts.add(found, np.repeat(group_of[rows], n_patches), states_of(rows).reshape(-1))
        top.add(found, rows[found.token // n_patches], found.token % n_patches)
        advance(len(rows))

    # what `encode` holds a token: all latents, or the k it keeps
    width = sae.n_latents if sae.sparsifier == "relu" else sae.k
    with bar("Surveying atoms", n_images) as advance:
        by_halves("surveying atoms", n_images, images_at_once(width, n_patches), device, take)
    return Survey(of, data, atoms.numpy(), coefficients, groups, counts, top)


def _patch_states(data: CachedDataset) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """Give who tells of each patch of some rows what it is, `(B, P)`.

    All patches of a normal image are normal; those of a defective one without a mask are unknown.
    """
    is_defective = data.manifest.labels == 1
    has_mask = data.manifest.table["mask_pixels"].to_numpy() > 0
    if data.cache.mask_size is None:
        has_mask = np.zeros_like(has_mask)

    def of_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        states = np.zeros((len(rows), data.cache.tokens_per_image), np.int64)
        states[is_defective[rows] & ~has_mask[rows]] = UNKNOWN
        masked = np.flatnonzero(has_mask[rows])
        if len(masked):
            marked = marked_patches(data.cache.masks(rows[masked]), data.spec.grid)
            states[masked] = np.where(marked, DEFECT, states[masked])
        return states

    return of_rows
