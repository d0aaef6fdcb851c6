"""Train a sparse autoencoder, one batch of tokens at a time.

    trainer = SaeTrainer(SaeConfig(width=4096), d_model=1024)
    for tokens in batches:
        stats = trainer.step(tokens)
    sae = trainer.sae()

The same seed, batches, machine, path and number of threads give the same bits.
Source: SPG (arXiv 2604.02871), section 3.1; github.com/riips/SPG at 864fca7,
`modules/sae/sae.py` and `runners/sae_trainer.py`; AuxK after Gao et al. 2024 (arXiv 2406.04093).
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from spg_core.adam import Rates
from spg_core.compiling import Compiled, Compiler, backend_for
from spg_core.errors import FitError
from spg_core.product_dtype import Precision, product_dtype
from spg_core.products import DEFAULT, LIBRARIES, Libraries
from spg_core.sae import Sae, check_width
from spg_core.sae_config import SaeConfig
from spg_core.sae_core import Measured, Way, graph_of, loss_terms, measure, update
from spg_core.sae_gradients import LossTerms, Path, dense_gradients
from spg_core.sae_weights import SaeWeights, initial_weights
from spg_core.training_guard import LossGuard, require_same_shapes

P = ParamSpec("P")
R = TypeVar("R")
# Of a training state, the tensors that are buffers; the rest are numbers.
_IN_PLACE = (
    *("encoder", "dictionary", "encoder_mean", "dictionary_mean"),
    *("encoder_square", "dictionary_square", "idle_tokens"),
)


@dataclass(frozen=True)
class StepStats:
    """What one step measured before it changed the weights; 0-d tensors, so nothing waits."""

    loss: Tensor
    """All terms, AuxK included."""
    fvu: Tensor
    """Fraction of the batch's variance unexplained."""
    l0: Tensor
    """Mean non-zero latents a token."""
    n_dead: Tensor
    """Atoms not active for `dead_after` tokens."""


class SaeTrainer:
    """Weights, Adam's moments and activity counters of one SAE in training."""

    def __init__(
        self,
        config: SaeConfig,
        d_model: int,
        device: str = "cpu",
        path: Path = "dense",
        precision: Precision = "auto",
        compiler: Compiler = "auto",
        libraries: Libraries = DEFAULT,
    ) -> None:
        """Start from `initial_weights`.

        Args:
            config: the recipe.
            d_model: width of a token.
            device: where to train.
            path: how gradients are computed. Both are exact and differ in rounding only; which is
                the faster depends on shape and machine, and only TopK has the sparse one.
            precision: of products; `auto` is bfloat16 on GPUs that multiply it (from compute
                capability 8.0, Ampere), where weights, moments and losses stay float32, and
                float32 elsewhere. float64 is for tests.
            compiler: what compiles the dense path's step; `auto` is inductor on CUDA, else none.
                The sparse path runs as it is: its sparse tensors cannot be captured.
            libraries: who makes float32 products on the CPU.
        """
        self.config = config
        self.d_model = d_model
        self.device = torch.device(device)
        self.way = Way(path, product_dtype(precision, self.device), libraries)
        self._dtype = torch.float64 if self.way.dtype == torch.float64 else torch.float32
        encoder, dictionary = initial_weights(config, d_model, self._dtype)
        self._weights = SaeWeights.start(encoder.to(self.device), dictionary.to(self.device))
        backend = backend_for(compiler, self.device)
        graph = graph_of(config)
        shared = (graph, self.way, d_model)
        self._graph = graph
        self._measure = Compiled(measure, backend, shared, plain=_of(config, measure))
        self._update = Compiled(update, backend, shared, plain=_of(config, update))
        rates = Rates(config.learning_rate, config.beta1, config.beta2)
        self._rates = rates if backend is None else rates.on(self.device)
        self._n_steps = 0
        self._n_tokens = 0
        # Before that many tokens no atom can be dead, and the device need not be asked.
        self._no_deaths_before = config.dead_after
        self._idle_tokens = torch.zeros(config.width, dtype=torch.int64, device=self.device)
        self._guard = LossGuard(self.device)

    def step(self, tokens: Tensor) -> StepStats:
        """Update the weights from tokens `(n, d_model)`; any floating dtype, cast to the weights'.

        Raises:
            ArtifactError: tokens of another width.
            FitError: no tokens, or a loss that is not finite. On the CPU the weights are then as
                before the step; on CUDA it is noticed up to 100 steps late.
        """
        check_width(tokens, self.d_model)
        if len(tokens) == 0:
            raise FitError(f"step {self._n_steps + 1} got a batch of 0 tokens, expected 1 or more")
        tokens = tokens.to(self.device, self._dtype)
        dense = self.path == "dense"
        config, run = (self._graph, self._measure) if dense else (self.config, measure)
        measured = run(config, self.way, self._weights, self._idle_tokens, tokens)
        n_tokens = self._n_tokens + len(tokens)
        loss = measured.found.loss + self._add_auxk(measured, tokens, n_tokens)
        self._guard.check(loss, self._n_steps + 1)

        self._idle_tokens = measured.idle_tokens
        self._n_tokens = n_tokens
        self._n_steps += 1
        found = measured.found
        config, change = (self._graph, self._update) if dense else (self.config, update)
        self._weights = change(config, self._weights, found.encoder, found.dictionary, self._rates)
        return StepStats(loss=loss, fvu=measured.fvu, l0=measured.l0, n_dead=measured.n_dead)

    @property
    def path(self) -> Path:
        """How gradients are computed."""
        return self.way.path

    @property
    def remark(self) -> str | None:
        """Say why the step is not compiled though it should be; None if all is well."""
        return self._measure.remark or self._update.remark

    def _add_auxk(self, measured: Measured, tokens: Tensor, n_tokens: int) -> Tensor | float:
        """Add AuxK's gradients to those found, and give its share of the loss.

        The `auxk` dead latents of largest pre-activation, clamped at 0, reconstruct the residual,
        which is a constant here. It is an SAE made of the dead atoms alone.
        """
        config, found = self.config, measured.found
        if 0 in (config.auxk, config.auxk_weight) or n_tokens < self._no_deaths_before:
            return 0.0
        atoms = measured.dead.nonzero().squeeze(1)
        if len(atoms) == 0:
            longest = int(measured.idle_tokens.max())
            self._no_deaths_before = n_tokens + config.dead_after - longest
            return 0.0
        few = len(atoms) <= config.auxk
        weights = self._weights.as_sae(config, self.way.dtype)
        dead_sae = Sae(
            encoder=weights.encoder[atoms],
            dictionary=weights.dictionary[atoms],
            k=min(config.auxk, len(atoms)),
            sparsifier="relu" if few else "topk",
            libraries=self.way.libraries,
        )
        terms = loss_terms(config, tokens)
        auxk_terms = LossTerms(
            scale=terms.scale * config.auxk_weight, l1=0.0, threshold=terms.threshold
        )
        auxk = dense_gradients(dead_sae, tokens, found.residual, auxk_terms)
        # The indices are distinct, so the order of additions is of no account.
        found.encoder.index_add_(0, atoms, auxk.encoder)
        found.dictionary.index_add_(0, atoms, auxk.dictionary)
        return auxk.loss

    def sae(self) -> Sae:
        """Give the SAE as it stands; later steps do not change it.

        Raises:
            FitError: a loss was not finite (CUDA only).
        """
        self._guard.check_past(self._n_steps)
        return Sae(
            encoder=self._weights.encoder.clone(),
            dictionary=self._weights.dictionary.clone(),
            k=self.config.k,
            sparsifier=self.config.sparsifier,
            clamp=self.config.clamp,
            libraries=self.way.libraries,
        )

    def state(self) -> dict[str, Tensor]:
        """Give all that the next step depends on; copies, so they may be written at leisure.

        Raises:
            FitError: a loss was not finite (CUDA only).
        """
        self._guard.check_past(self._n_steps)
        return {name: tensor.detach().clone() for name, tensor in self._state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state()` gave, to the same bits as without the break.

        The way is taken over too, so that it cannot change in the middle.

        Raises:
            ArtifactError: the state is another configuration's.
        """
        mine = self._state()
        require_same_shapes(mine, state)
        for name in _IN_PLACE:
            mine[name].copy_(state[name])
        self._n_steps = int(state["n_steps"])
        self._weights.n_steps.fill_(self._n_steps)
        self._n_tokens = int(state["n_tokens"])
        self._no_deaths_before = self.config.dead_after
        path: Path = "sparse" if bool(state["sparse_path"]) else "dense"
        libraries = Libraries(*(LIBRARIES[one] for one in state["plain_products"].tolist()))
        self.way = replace(self.way, path=path, libraries=libraries)

    def _state(self) -> dict[str, Tensor]:
        weights = self._weights
        return {
            "encoder": weights.encoder,
            "dictionary": weights.dictionary,
            "encoder_mean": weights.encoder_mean,
            "dictionary_mean": weights.dictionary_mean,
            "encoder_square": weights.encoder_square,
            "dictionary_square": weights.dictionary_square,
            "idle_tokens": self._idle_tokens,
            "n_steps": torch.tensor(self._n_steps),
            "n_tokens": torch.tensor(self._n_tokens),
            "sparse_path": torch.tensor(self.path == "sparse"),
            "plain_products": torch.tensor([one == "torch" for one in astuple(self.way.libraries)]),
        }


def _of(
    config: SaeConfig, function: Callable[Concatenate[SaeConfig, P], R]
) -> Callable[Concatenate[SaeConfig, P], R]:
    """Give a function that takes a graph's config, and computes by the whole one."""

    def run(_graph: SaeConfig, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return function(config, *args, **kwargs)

    return run
