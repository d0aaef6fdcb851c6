"""Fit guides: one Adam step for one pair of guides, with the gradient written down.

Without autograd a step is two pure functions of tensors, `_gradient` and `_update`, which run as
they are or through torch.compile.

Axes: C n_latents, d d_model, B images, P patches, H x W pixels.
Source: arXiv 2604.02871, Section 3.3; constants from github.com/riips/SPG at 864fca7.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spg_core.adam import ADAM_EPS, adam_step
from spg_core.anomaly_map import MapOperator
from spg_core.compiling import Compiled, Compiler, backend_for
from spg_core.guide_config import GuideConfig
from spg_core.guide_loss import LabelTargets, MapTargets, label_loss, map_targets, patch_loss
from spg_core.guide_rates import GuideNumbers, graph_of, numbers_of
from spg_core.guides import (
    ANOMALY,
    NORMAL,
    SMALLEST_NORM,
    active_coefficients,
    compose_guides,
    initial_coefficients,
)
from spg_core.training_guard import LossGuard, require_same_shapes


@dataclass(frozen=True, kw_only=True)
class GuideFit:
    """One pair of guides to be fitted."""

    dictionary: Tensor
    """Atoms `(C, d)` float32."""
    alive: Tensor
    """`(C,)` bool: atoms that guides may use."""
    config: GuideConfig
    free: bool = False
    """Take the coefficients as they are, of either sign and without l1: a control."""


@dataclass(frozen=True)
class GuideBatch:
    """What every fit needs of a batch of images; made once, shared by all."""

    tokens: Tensor
    """Patch tokens of length 1, `(B, P, d)` float32; CLS tokens are `(B, 1, d)`."""
    targets: MapTargets | LabelTargets


def guide_batch(operator: MapOperator, tokens: Tensor, masks: Tensor) -> GuideBatch:
    """Prepare tokens `(B, P, d)`, any float dtype and length, and masks `(B, H, W)` of 0 and 1."""
    return GuideBatch(_of_length_1(tokens), map_targets(operator, masks.float()))


def label_batch(tokens: Tensor, labels: Tensor) -> GuideBatch:
    """Prepare CLS tokens `(B, d)`, any float dtype and length, and labels `(B,)` of 0 and 1."""
    return GuideBatch(_of_length_1(tokens)[:, None], LabelTargets(labels.float()[:, None]))


def _of_length_1(tokens: Tensor) -> Tensor:
    unit_tokens = tokens.to(torch.float32, copy=True)
    lengths = torch.linalg.vector_norm(unit_tokens, dim=-1, keepdim=True)
    # in place: a second array of this size costs more than the division
    return unit_tokens.div_(lengths.clamp_min_(SMALLEST_NORM))


class GuideTrainer:
    """The state of a fit: raw coefficients `(2, C)`, Adam's moments, their running average."""

    def __init__(
        self,
        fit: GuideFit,
        *,
        operator: MapOperator,
        device: torch.device | str = "cpu",
        compiler: Compiler = "auto",
    ) -> None:
        """Start from `initial_coefficients`.

        Args:
            fit: the dictionary and the config.
            operator: from patches to maps.
            device: where to train.
            compiler: of the step; `auto` is inductor on CUDA, else none.

        Raises: ConfigError for an impossible config.
        """
        self._config, self._free = fit.config, fit.free
        self.device = torch.device(device)
        self.operator = operator.to(device)
        self._alive, self._dictionary = fit.alive.to(device), fit.dictionary.to(device)
        raw = initial_coefficients(len(fit.dictionary), fit.config.seed).to(device)
        self._state = _State(
            raw=raw,
            ema=raw.clone(),
            mean=torch.zeros_like(raw),
            square=torch.zeros_like(raw),
            n_steps=torch.zeros((), dtype=torch.float64, device=device),
        )
        self.n_steps = 0
        self._guard = LossGuard(self.device)
        self.coefficients(self.raw)  # refuses an impossible sparsity before the first step
        backend = backend_for(compiler, self.device)
        self._graph = graph_of(fit.config)
        shared = (self._graph, fit.free, fit.dictionary.shape)
        self._gradient = Compiled(_gradient, backend, shared)
        self._update = Compiled(_update, backend, shared)
        self._numbers = numbers_of(fit.config, None if backend is None else self.device)

    @property
    def raw(self) -> Tensor:
        """Parameters after the last step, `(2, C)`; see `coefficients`."""
        return self._state.raw

    @property
    def ema(self) -> Tensor:
        """Their running average, `(2, C)`."""
        return self._state.ema

    @property
    def remark(self) -> str | None:
        """Say why the step is not compiled though it should be; None if all is well."""
        return self._gradient.remark or self._update.remark

    def step(self, tokens: Tensor, masks: Tensor) -> Tensor:
        """Take one step on images; give the loss, 0-d. See `guide_batch` and `step_on`."""
        return self.step_on(guide_batch(self.operator, tokens, masks))

    @torch.no_grad()
    def step_on(self, batch: GuideBatch) -> Tensor:
        """Take one step on a batch; give the loss before it, 0-d.

        Raises: FitError when a loss is not finite. On the CPU the coefficients are then as before
            the step; on CUDA it is noticed up to 100 steps late.
        """
        weights = _Weights(self.raw, self._dictionary, self._alive)
        loss, gradient = self._gradient(
            self._graph, self._free, self._numbers, weights, batch, self.operator
        )
        self._guard.check(loss, self.n_steps + 1)
        self._state = self._update(self._numbers, self._state, gradient)
        self.n_steps += 1
        return loss

    def coefficients(self, raw: Tensor) -> Tensor:
        """Give the non-negative coefficients `(2, C)` that raw parameters stand for."""
        return active_coefficients(raw, self._config, alive=self._alive, free=self._free)

    def state(self) -> dict[str, Tensor]:
        """Give everything a later process needs to go on exactly where this one stands; copies.

        Raises: FitError: a loss was not finite (CUDA only).
        """
        self._guard.check_past(self.n_steps)
        return {name: tensor.clone() for name, tensor in vars(self._state).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()` of a trainer made with the same arguments.

        Raises: ArtifactError: the state is another configuration's, or an older version's.
        """
        require_same_shapes(vars(self._state), state)
        self._state = _State(**{name: tensor.to(self.device) for name, tensor in state.items()})
        self.n_steps = int(self._state.n_steps)


@dataclass(frozen=True, kw_only=True)
class _State:
    """All that changes from step to step."""

    raw: Tensor
    """`(2, C)` float32."""
    ema: Tensor
    """Running average of `raw`."""
    mean: Tensor
    """Adam's running mean of the gradient."""
    square: Tensor
    """Adam's running mean of the squared gradient."""
    n_steps: Tensor
    """Steps taken, 0-d float64."""


@dataclass(frozen=True)
class _Weights:
    """The tensors a step's gradient is taken at."""

    raw: Tensor
    dictionary: Tensor
    alive: Tensor


def _gradient(
    config: GuideConfig,
    free: bool,
    numbers: GuideNumbers,
    weights: _Weights,
    batch: GuideBatch,
    operator: MapOperator,
) -> tuple[Tensor, Tensor]:
    """Give the loss, 0-d, and its gradient by the raw coefficients `(2, C)`.

    Of the config only what is no number counts; `numbers` has those.
    The chain: raw -> coefficients z -> guides z D -> directions of length 1 -> their difference /
    temperature -> logits of all patches -> p_A -> loss; and back.
    """
    z = active_coefficients(weights.raw, config, alive=weights.alive, free=free)
    guides = compose_guides(z, weights.dictionary)
    lengths = torch.linalg.vector_norm(guides, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
    directions = guides / lengths
    targets = batch.targets
    # the release's loss on labels takes the raw cosines
    temperature = numbers.temperature if isinstance(targets, MapTargets) else 1.0
    difference = (directions[ANOMALY] - directions[NORMAL]) / temperature
    tokens = batch.tokens.flatten(0, 1)
    logits = torch.mv(tokens, difference).view(batch.tokens.shape[:2])
    if isinstance(targets, MapTargets):
        patches = logits.sigmoid()
        loss, by_patches = patch_loss(
            patches, operator, targets, dice=config.dice, lambda_dice=numbers.lambda_dice
        )
        by_logits = by_patches * patches * (1 - patches)
    else:
        loss, by_logits = label_loss(logits, targets)
    by_anomaly = torch.mv(tokens.T, by_logits.flatten()) / temperature
    by_directions = torch.stack([-by_anomaly, by_anomaly])  # NORMAL first
    # A direction has length 1, so what lies along it has no effect.
    along = (by_directions * directions).sum(-1, keepdim=True)
    by_guides = (by_directions - along * directions) / lengths
    by_z = torch.matmul(by_guides, weights.dictionary.T)
    if free:
        return loss, by_z * weights.alive
    if config.sparsity != "topk":
        loss, by_z = loss + numbers.beta * z.sum(), by_z + numbers.beta
    if config.sparsity == "softplus":
        return loss, by_z * weights.raw.sigmoid() * weights.alive
    # TopK is straight through: what is positive gets the gradient, kept or not
    return loss, by_z * ((weights.raw > 0) & weights.alive)


def _update(numbers: GuideNumbers, state: _State, gradient: Tensor) -> _State:
    """Take Adam's step and average the coefficients; the state given stays as it is."""
    n_steps = state.n_steps + 1
    moved = adam_step(
        state.raw, gradient, state.mean, state.square, n_steps, numbers.adam, ADAM_EPS
    )
    raw = moved.weights  # the first average is a copy
    ema = torch.where(n_steps == 1, raw, torch.lerp(state.ema, raw, numbers.new_share))
    return _State(raw=raw, ema=ema, mean=moved.mean, square=moved.square, n_steps=n_steps)
