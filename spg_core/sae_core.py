"""The two pure functions an SAE's training step is made of; they run eagerly or compiled.

`measure` reads the weights and changes nothing, `update` gives those after the step. Between the
two the trainer looks at the loss and adds AuxK, whose size depends on how many atoms are dead. No
number leaves the device in either, and what changes from step to step is a tensor, so each is one
graph.
"""

from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor
from torch.optim.adam import adam

from spg_core.adam import ADAM_EPS, Rates, adam_step
from spg_core.products import Libraries
from spg_core.sae_config import SaeConfig
from spg_core.sae_gradients import LossTerms, Path, SaeGradients, gradients
from spg_core.sae_loss import error_scale, fvu, variation
from spg_core.sae_weights import SMALLEST_NORM, SaeWeights, project


@dataclass(frozen=True)
class Way:
    """How a step is computed: what it comes to differs in rounding alone."""

    path: Path
    """Of the gradients."""
    dtype: torch.dtype
    """That products read."""
    libraries: Libraries
    """Who makes products on the CPU."""


@dataclass(frozen=True)
class Measured:
    """What a batch says about the weights before they change."""

    found: SaeGradients
    """Loss and gradients, AuxK not yet in them."""
    idle_tokens: Tensor
    """Tokens since each atom was active, this batch included, `(C,)` int64."""
    dead: Tensor
    """`(C,)` bool."""
    n_dead: Tensor
    """0-d int64."""
    fvu: Tensor
    """Fraction of the batch's variance unexplained, 0-d."""
    l0: Tensor
    """Mean non-zero latents a token, 0-d."""


def loss_terms(config: SaeConfig, tokens: Tensor) -> LossTerms:
    """Give the loss of a batch of tokens `(n, d)`."""
    return LossTerms(
        scale=error_scale(config.loss, *tokens.shape),
        l1=config.l1 / len(tokens),
        threshold=config.dead_threshold,
    )


def measure(
    config: SaeConfig,
    way: Way,
    weights: SaeWeights,
    idle_tokens: Tensor,
    tokens: Tensor,
) -> Measured:
    """Compute loss, gradients and counters of tokens `(n, d)` of the weights' dtype.

    Args:
        config: the recipe.
        way: how gradients are computed; only path `dense` can be compiled.
        weights: as before the step.
        idle_tokens: tokens since each atom was active, `(C,)` int64, before the step.
        tokens: the batch.
    """
    sae = weights.as_sae(config, way.dtype, way.libraries)
    found = gradients(way.path, sae, tokens, loss_terms(config, tokens))
    idle = (idle_tokens + len(tokens)).masked_fill_(found.active, 0)
    dead = idle >= config.dead_after
    return Measured(
        found=found,
        idle_tokens=idle,
        dead=dead,
        n_dead=dead.sum(),
        fvu=fvu(found.squared_error, variation(tokens)),
        l0=found.n_nonzero / len(tokens),
    )


@cache  # graphs are told apart by the objects they were made for
def graph_of(config: SaeConfig) -> SaeConfig:
    """Give what of a config is baked into a compiled step: no rates, decays, start and AuxK.

    Configs that give the same share their graphs.
    """
    inside = replace(config, auxk=0, auxk_weight=0.0, tied_init=True, seed=0)
    return replace(inside, learning_rate=1.0, beta1=0.5, beta2=0.5)


def update(
    config: SaeConfig,
    weights: SaeWeights,
    encoder_gradient: Tensor,
    dictionary_gradient: Tensor,
    rates: Rates,
) -> SaeWeights:
    """Take one Adam step, put the atoms back on the sphere, and give the weights after it.

    Eagerly these are the same tensors, changed in place, and the gradients are used up; rates are
    then the config's, else the tensors.

    The forward pass divides atoms by their length. They have length 1 already, so the division is
    the identity and only its derivative remains: no gradient along the atom.
    """
    if torch.compiler.is_compiling():
        return _update_elementwise(config, weights, encoder_gradient, dictionary_gradient, rates)
    if config.unit_norm:
        along = (dictionary_gradient * weights.dictionary).sum(1, keepdim=True)
        dictionary_gradient.addcmul_(weights.dictionary, along, value=-1)
    _adam_fused(config, weights, encoder_gradient, dictionary_gradient)
    if config.unit_norm:
        project(weights.dictionary)
    return weights


def _update_elementwise(
    config: SaeConfig,
    weights: SaeWeights,
    encoder_gradient: Tensor,
    dictionary_gradient: Tensor,
    rates: Rates,
) -> SaeWeights:
    """Take the step as formulas, which a compiler fuses.

    The results are new tensors: writing in place made inductor's C++ backend fail (torch 2.15).
    """
    n_steps = weights.n_steps + 1
    step = partial(
        adam_step,
        n_steps=n_steps,
        rates=rates,
        eps=ADAM_EPS,
    )
    if config.unit_norm:
        along = (dictionary_gradient * weights.dictionary).sum(1, keepdim=True)
        dictionary_gradient = dictionary_gradient - weights.dictionary * along
    mean, square = weights.encoder_mean, weights.encoder_square
    encoder = step(weights.encoder, encoder_gradient, mean, square)
    mean, square = weights.dictionary_mean, weights.dictionary_square
    dictionary = step(weights.dictionary, dictionary_gradient, mean, square)
    atoms = dictionary.weights
    if config.unit_norm:
        atoms = atoms / atoms.norm(dim=1, keepdim=True).clamp_min(SMALLEST_NORM)
    return SaeWeights(
        encoder=encoder.weights,
        dictionary=atoms,
        encoder_mean=encoder.mean,
        dictionary_mean=dictionary.mean,
        encoder_square=encoder.square,
        dictionary_square=dictionary.square,
        n_steps=n_steps,
    )


def _adam_fused(
    config: SaeConfig,
    weights: SaeWeights,
    encoder_gradient: Tensor,
    dictionary_gradient: Tensor,
) -> None:
    """Take the step in one pass over weights, gradients and moments."""
    # the function wants float32, and counts the steps up, of each tensor by itself
    steps = [weights.n_steps.float(), weights.n_steps.float()]
    adam(
        [weights.encoder, weights.dictionary],
        [encoder_gradient, dictionary_gradient],
        [weights.encoder_mean, weights.dictionary_mean],
        [weights.encoder_square, weights.dictionary_square],
        [],
        steps,
        fused=True,
        amsgrad=False,
        beta1=config.beta1,
        beta2=config.beta2,
        lr=config.learning_rate,
        weight_decay=0.0,
        eps=ADAM_EPS,
        maximize=False,
    )
    weights.n_steps.add_(1)
