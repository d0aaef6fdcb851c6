"""Dictionaries that guides are fitted over: the SAE's, or controls that tell what the SAE adds.

    sae     the SAE's atoms
    pca     principal directions of the auxiliary tokens, each with both signs
    random  as many random unit atoms as the SAE has, seeded
    none    no dictionary: a guide is any vector of the token's width, without ReLU and l1

All but `none` are fitted alike, with non-negative coefficients.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cache.stream import token_batches
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import SaeDocument
from pipeline.artifacts.guides import GuidesParents
from pipeline.artifacts.terms import Backbone
from pipeline.configs import FitGuidesConfig
from pipeline.inputs import CachedDataset
from spg_core.anomaly_map import map_operator
from spg_core.compiling import Compiler
from spg_core.guide_step import GuideFit, GuideTrainer

_BATCH_IMAGES = 16


@dataclass(frozen=True)
class GuideDictionary:
    """What guides are combined from, and how."""

    atoms: Tensor
    """`(C, d_model)` float32."""
    alive: Tensor
    """`(C,)` bool: atoms that guides may use."""
    free: bool = False
    """Whether coefficients are taken as they are, of either sign and without l1."""


@dataclass(frozen=True)
class AtomSource:
    """The SAE whose atoms guides combine: one of the store, or a file's."""

    parents: GuidesParents
    backbone: Backbone
    atoms: Tensor
    """`(C, d_model)` float32."""
    alive: Tensor
    """`(C,)` bool: atoms that some auxiliary token activates."""


def of_sae(sae: Artifact[SaeDocument]) -> AtomSource:
    """Take the atoms of an SAE of the store."""
    return AtomSource(
        GuidesParents(cache=sae.document.parents.cache, sae=sae.id),
        sae.document.backbone,
        sae.tensors["dictionary"],
        sae.tensors["ever_active"].bool(),
    )


def make_dictionary(
    over: AtomSource, data: CachedDataset, config: FitGuidesConfig
) -> GuideDictionary:
    """Give the dictionary a config asks for, beside the SAE that sets its size and tokens."""
    atoms, d_model = over.atoms, data.cache.d_model
    match config.dictionary:
        case "sae":
            alive = over.alive
            return GuideDictionary(atoms, alive if config.mask_dead else torch.ones_like(alive))
        case "pca":
            atoms = principal_directions(data, len(atoms))
        case "random":
            atoms = random_atoms(len(atoms), d_model, config.seed)
        case "none":
            atoms = torch.eye(d_model)
    alive = torch.ones(len(atoms), dtype=torch.bool)
    return GuideDictionary(atoms, alive, free=config.dictionary == "none")


def make_trainer(
    dictionary: GuideDictionary,
    data: CachedDataset,
    config: FitGuidesConfig,
    device: torch.device,
    compiler: Compiler = "auto",
) -> GuideTrainer:
    """Set up one fit; maps are bilinear, without blur. Raises: ConfigError."""
    fit = GuideFit(
        dictionary=dictionary.atoms, alive=dictionary.alive, config=config, free=dictionary.free
    )
    spec = data.spec
    operator = map_operator(spec.grid, spec.height, spec.width, sigma=0)
    return GuideTrainer(fit, operator=operator, device=device, compiler=compiler)


def random_atoms(n_latents: int, d_model: int, seed: int) -> Tensor:
    """Draw atoms `(n_latents, d_model)` uniformly on the unit sphere."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(n_latents, d_model, generator=generator)
    lengths: Tensor = torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    return atoms / lengths


def principal_directions(data: CachedDataset, n_latents: int) -> Tensor:
    """Give principal directions of all tokens with both signs, largest variance first.

    Coefficients cannot be negative, so a direction takes two atoms, v and -v. All d_model
    directions are taken, or half as many as the SAE has atoms where that is fewer.

    Returns: `(C, d_model)` float32 with C = 2 min(d_model, n_latents / 2), rows of length 1.
    """
    cache = data.cache
    total = torch.zeros(cache.d_model, dtype=torch.float64)
    products = torch.zeros(cache.d_model, cache.d_model, dtype=torch.float64)
    batch = _BATCH_IMAGES * cache.tokens_per_image
    for array in token_batches(cache, order="sequential", batch=batch, seed=0, epoch=0):
        tokens = torch.from_numpy(array).double()
        total += tokens.sum(0)
        products += tokens.T @ tokens
    mean = total / cache.n_tokens
    _, vectors = torch.linalg.eigh(products / cache.n_tokens - torch.outer(mean, mean))
    directions = vectors.T.flip(0)[: max(1, min(cache.d_model, n_latents // 2))]
    # eigh leaves the sign open: the largest entry is made positive
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * torch.sign(largest)
    return torch.stack([directions, -directions], dim=1).flatten(0, 1).float()
