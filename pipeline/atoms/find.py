"""Atoms: the patches that the active atoms of fitted guides stand for (the paper's Fig. 5).

Everything comes from the auxiliary cache in one pass: the strongest patches of each atom, the
atom's activation over their images, and how its activation spreads over categories and defects.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import GuidesDocument
from pipeline.artifacts.terms import CacheParent
from pipeline.configs import AtomsConfig
from pipeline.fitting.sae import load_sae
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.machine.device import by_halves, resolve_device
from pipeline.report.data import Atom, AtomPatch, GuideName
from pipeline.terminal.progress import bar, say
from spg_core.atom_patches import TopPatches, atom_activations
from spg_core.errors import ArtifactError
from spg_core.guides import ANOMALY, NORMAL
from spg_core.sae import Sae

_BLOCK_IMAGES = 16
_BLOCK_BYTES = 64 << 20
"""Activations `(atoms, images, patches)` held at once; a block has fewer images for many atoms."""
_SHEET_ATOMS = 16
PAIR: dict[GuideName, int] = {"anomaly": ANOMALY, "normal": NORMAL}
"""Where each guide's coefficients are."""


def find_atoms(
    store: Objects, guides: Artifact[GuidesDocument], config: AtomsConfig
) -> tuple[CachedDataset, list[Atom]]:
    """Find the strongest atoms of the guides and their patches, in one pass over the cache.

    Returns: the auxiliary dataset; the atoms, a guide after the other, by falling coefficient.

    Raises: NotInStore, IncompleteCache, CorruptStore, ArtifactError; MetricError for a GPU on which
        one image does not fit.
    """
    source, sae_id = parents_of(guides)
    data = open_dataset(store, source.dataset, source.backbone, source.key)
    _, sae = load_sae(store, sae_id)
    pair = guides.tensors[f"coefficients_{config.coefficients}"]
    top = _SHEET_ATOMS if config.top is None else config.top
    chosen = {guide: strongest(pair[PAIR[guide]], top) for guide in guide_names(config)}
    # an atom that both guides use is encoded once
    atoms = torch.tensor(sorted({atom for some in chosen.values() for atom in some.tolist()}))
    best, sums = _stream(data, sae, atoms, config)
    spreads = _spreads(data, sums)
    place = {int(atom): at for at, atom in enumerate(atoms)}
    return data, [
        Atom(
            index=atom,
            guide=guide,
            coefficient=float(pair[PAIR[guide], atom]),
            patches=_patches(data, best, place[atom]),
            category_spread=spreads["category"][place[atom]],
            defect_spread=spreads["defect"][place[atom]],
        )
        for guide, numbers in chosen.items()
        for atom in numbers.tolist()
    ]


def _patches(data: CachedDataset, top: TopPatches, at: int) -> list[AtomPatch]:
    """Give the patches of the atom at place `at` that fire, with the images they are in."""
    active = np.flatnonzero(top.activation[at] > 0)
    grid = data.spec.grid
    images = data.manifest.select(top.row[at, active]).to_pylist()
    return [
        AtomPatch(
            row=int(top.row[at, place]),
            image_id=str(image["image_id"]),
            image_path=str(image["image_path"]),
            category=str(image["category"]),
            defect=str(image["defect"]),
            activation=float(top.activation[at, place]),
            heatmap=top.maps[at, place].reshape(grid.rows, grid.cols),
            patch=divmod(int(top.patch[at, place]), grid.cols),
            thumbnail=image.get("thumbnail"),
        )
        for place, image in zip(active, images, strict=True)
    ]


def parents_of(guides: Artifact[GuidesDocument]) -> tuple[CacheParent, str]:
    """Give the auxiliary cache and the SAE of guides.

    Raises: ArtifactError where they combine no atoms of an SAE of the store.
    """
    parents = guides.document.parents
    if guides.document.config.dictionary != "sae":
        raise ArtifactError(
            f"guides {guides.id} combine a control dictionary "
            f"({guides.document.config.dictionary}), not the atoms of an SAE; "
            "choose guides that were fitted with --dictionary sae"
        )
    if parents.sae is None:
        raise ArtifactError(
            f"guides {guides.id} combine the atoms of {parents.over}; which patches activate them "
            "only its own encoder can tell, which is not kept"
        )
    return parents.cache, parents.sae


def warn_of_start(guides: Artifact[GuidesDocument], config: AtomsConfig) -> None:
    """Say so where the averaged coefficients still hold much of their start."""
    share = guides.document.training.ema_start_share
    if config.coefficients == "ema" and share > 0.01:
        say(
            f"the averaged coefficients still hold {share:.0%} of their random start, which moves "
            "the order of atoms; --coefficients raw ranks by the last step's"
        )


def on_device(sae: Sae, device: torch.device) -> Sae:
    """Give the SAE with its weights on a device."""
    return replace(sae, encoder=sae.encoder.to(device), dictionary=sae.dictionary.to(device))


def has_atoms(guides: Artifact[GuidesDocument]) -> bool:
    """Tell whether guides combine the atoms of an SAE of the store, no control's or file's."""
    document = guides.document
    return document.config.dictionary == "sae" and document.parents.sae is not None


def strongest(coefficients: Tensor, top: int) -> Tensor:
    """Give the atoms with the `top` largest coefficients above 0, largest first, `(m,)` int64.

    Args: coefficients `(n_latents,)` of one guide.
    """
    values, order = coefficients.sort(descending=True, stable=True)
    return order[:top][values[:top] > 0]


def guide_names(config: AtomsConfig) -> tuple[GuideName, ...]:
    """Give the guides a config asks for."""
    return ("anomaly", "normal") if config.guide == "both" else (config.guide,)


@torch.inference_mode()
def _stream(
    data: CachedDataset, sae: Sae, atoms: Tensor, config: AtomsConfig
) -> tuple[TopPatches, NDArray[np.float64]]:
    """Pass over the cache once.

    Returns: the top patches, and each atom's activation summed over the patches of all images of
    a (category, defect) group, `(A, groups)`.
    """
    device = resolve_device(config.device)
    sae, wanted = on_device(sae, device), atoms.to(device)
    n_images, n_patches = data.cache.n_images, data.cache.tokens_per_image
    top = TopPatches(len(atoms), n_patches, keep=config.patches, one_per_image=config.one_per_image)
    group_of, groups = groups_of(data)
    sums = np.zeros((len(atoms), len(groups)))

    def take(here: slice) -> None:
        rows = np.arange(here.start, here.stop)
        tokens = torch.from_numpy(data.cache.tokens(rows)).to(device).float()
        found = atom_activations(sae, tokens.flatten(0, 1), wanted).cpu().numpy()
        # from here on nothing can lack a GPU's memory, so no image is taken in twice
        activations = found.reshape(len(atoms), len(rows), n_patches)
        top.add(rows, activations)
        np.add.at(sums.T, group_of[rows], activations.sum(2, dtype=np.float64).T)
        advance(len(rows))

    with bar("Finding atoms", n_images) as advance:
        most = images_at_once(len(atoms), n_patches)
        by_halves("finding atoms", n_images, most, device, take)
    return top, sums


def images_at_once(n_atoms: int, n_patches: int) -> int:
    """Give how many images' activations stay within 64 MiB, 16 at most.

    One image is always taken, so 64 MiB is passed where atoms x patches alone exceed it.
    """
    return max(1, min(_BLOCK_IMAGES, _BLOCK_BYTES // (4 * max(n_atoms, 1) * n_patches)))


def groups_of(data: CachedDataset) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """Number the pairs of category and defect: the number of each row, and the pairs."""
    categories, defects = data.manifest.column("category"), data.manifest.column("defect")
    pairs = [(str(one), str(other)) for one, other in zip(categories, defects, strict=True)]
    groups = list(dict.fromkeys(pairs))
    number = {pair: at for at, pair in enumerate(groups)}
    return np.array([number[pair] for pair in pairs]), groups


def _spreads(data: CachedDataset, sums: NDArray[np.float64]) -> dict[str, list[dict[str, float]]]:
    """Turn sums `(A, groups)` into shares by category and by defect, one dict an atom.

    Sums become means an image first: a category with many images is not a favourite for that.
    """
    group_of, groups = groups_of(data)
    images = np.bincount(group_of, minlength=len(groups))
    spreads = {}
    for part, what in enumerate(("category", "defect")):
        names = list(dict.fromkeys(group[part] for group in groups))
        member = np.array([[group[part] == name for name in names] for group in groups])
        means = (sums @ member) / (images @ member)
        totals = means.sum(1)
        spreads[what] = [
            dict(zip(names, (mean / total).tolist(), strict=True)) if total > 0 else {}
            for mean, total in zip(means, totals, strict=True)
        ]
    return spreads
