"""Fit guides: one Adam step for one pair of guides, or for many that share each token read.

Fits are independent: their losses are summed only to get all gradients in one backward pass, and
no fit's loss depends on another's parameters. They may differ in dictionary and its width.

Axes: G fits, C n_latents (may differ between fits), d d_model, B images, P patches, H x W pixels.
Source: arXiv 2604.02871, Section 3.3; constants from github.com/riips/SPG at 864fca7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spg_core.anomaly_map import MapOperator
from spg_core.errors import ConfigError, FitError
from spg_core.guide_loss import map_loss
from spg_core.guides import (
    active_coefficients,
    compose_guides,
    initial_coefficients,
    patch_probabilities,
    unit,
)


@dataclass(frozen=True, kw_only=True)
class GuideFit:
    """One pair of guides to be fitted."""

    dictionary: Tensor
    """Atoms `(C, d)` float32."""
    alive: Tensor
    """`(C,)` bool: atoms that guides may use."""
    sparsity: str
    """`relu`, `topk` or `free`."""
    topk: int
    """Coefficients a guide keeps, for `topk`."""
    beta: float
    """Weight of each guide's l1 norm, for `relu`."""
    learning_rate: float
    beta1: float
    beta2: float
    seed: int


class GuideTrainer:
    """The state of one or many fits: raw coefficients `(2, C)` each, Adam moments, EMA."""

    def __init__(
        self,
        fits: Sequence[GuideFit],
        *,
        operator: MapOperator,
        temperature: float,
        dice: str,
        ema: float,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= ema < 1:
            raise ConfigError(f"ema is a decay in [0, 1), got {ema}")
        self.fits = list(fits)
        self._operator = operator.to(device)
        self._temperature, self._dice, self._decay = temperature, dice, ema
        self._alive = [fit.alive.to(device) for fit in fits]
        self._dictionaries = [fit.dictionary.to(device) for fit in fits]
        self.raw = [
            initial_coefficients(len(fit.dictionary), fit.seed).to(device).requires_grad_()
            for fit in fits
        ]
        self.ema = [raw.detach().clone() for raw in self.raw]
        self.n_steps = 0
        self._optimizers = [
            torch.optim.Adam([raw], lr=fit.learning_rate, betas=(fit.beta1, fit.beta2))
            for raw, fit in zip(self.raw, fits, strict=True)
        ]

    def step(self, tokens: Tensor, masks: Tensor) -> Tensor:
        """Take one step on a batch of images; give each fit's loss, `(G,)`, detached.

        Args:
            tokens: patch tokens `(B, P, d)`, any float dtype, any length.
            masks: `(B, H, W)` of 0 and 1.

        Raises: FitError when every fit's loss is not finite.
        """
        return self.step_on_units(unit(tokens.float()), masks.float())

    def step_on_units(self, unit_tokens: Tensor, masks: Tensor) -> Tensor:
        """Take one step on tokens `(B, P, d)` of length 1 and masks, both float32.

        What several trainers on one batch share. Otherwise as `step`.
        """
        coefficients = [self.coefficients(i, raw) for i, raw in enumerate(self.raw)]
        guides = torch.stack(
            [
                compose_guides(z, dictionary)
                for z, dictionary in zip(coefficients, self._dictionaries, strict=True)
            ]
        )
        patches = patch_probabilities(unit_tokens, guides, self._temperature)
        losses = map_loss(self._operator(patches), masks, dice=self._dice)
        penalties = torch.stack(
            [
                z.sum() * (fit.beta if fit.sparsity == "relu" else 0.0)
                for z, fit in zip(coefficients, self.fits, strict=True)
            ]
        )
        losses = losses + penalties
        if not bool(torch.isfinite(losses).any()):
            raise FitError(
                f"the guides' loss is not finite at step {self.n_steps + 1}; "
                "lower --learning-rate, or look for broken tokens with `spg-pipe cache verify`"
            )
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for optimizer in self._optimizers:
            optimizer.step()
        self._average()
        return losses.detach()

    @torch.no_grad()
    def _average(self) -> None:
        for average, raw in zip(self.ema, self.raw, strict=True):
            if self.n_steps == 0:
                average.copy_(raw)
            else:
                average.lerp_(raw, 1 - self._decay)
        self.n_steps += 1

    def coefficients(self, fit: int, raw: Tensor) -> Tensor:
        """Give the non-negative coefficients `(2, C)` that raw parameters of a fit stand for."""
        chosen = self.fits[fit]
        return active_coefficients(
            raw, sparsity=chosen.sparsity, topk=chosen.topk, alive=self._alive[fit]
        )

    def state(self) -> dict[str, Tensor]:
        """Give everything a later process needs to go on exactly where this one stands."""
        tensors = {"n_steps": torch.tensor(self.n_steps)}
        for i, (raw, average) in enumerate(zip(self.raw, self.ema, strict=True)):
            tensors[f"raw.{i}"], tensors[f"ema.{i}"] = raw.detach(), average
            for name, value in self._optimizers[i].state.get(raw, {}).items():
                tensors[f"{name}.{i}"] = value
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `state()` of a trainer made with the same arguments."""
        self.n_steps = int(tensors["n_steps"])
        for i, (raw, average) in enumerate(zip(self.raw, self.ema, strict=True)):
            with torch.no_grad():
                raw.copy_(tensors[f"raw.{i}"])
                average.copy_(tensors[f"ema.{i}"])
            moments = {
                name: tensors[f"{name}.{i}"].clone()
                for name in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}.{i}" in tensors
            }
            if moments:
                optimizer = self._optimizers[i]
                whole = optimizer.state_dict()
                optimizer.load_state_dict({**whole, "state": {0: moments}})
