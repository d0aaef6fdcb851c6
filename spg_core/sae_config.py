"""What an SAE is and how it is trained: the one declaration, from the option to the maths.

Needs no torch, so that the command line is quick to explain it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from spg_core.errors import OptionsDisagree
from spg_core.fields import Decay, Paper, Rate, Seed, Weight, check_fields

Sparsifier = Literal["topk", "relu"]
Loss = Literal["mean", "sum"]

Atoms = Annotated[int, Meta(ge=1, le=1_000_000)]
"""A number of atoms or of latents."""


@dataclass(frozen=True, kw_only=True)
class SaeConfig:
    """Everything a training step depends on besides the tokens. Defaults are `released`."""

    width: Atoms = 4096
    """Atoms in the dictionary, C."""
    k: Atoms = 32
    """Latents a token may use, for sparsifier topk."""
    sparsifier: Sparsifier = "topk"
    """topk, or relu with an l1 penalty."""
    l1: Weight = 0.0
    """Weight of a token's summed latents, for sparsifier relu."""
    loss: Annotated[Loss, Paper("sum")] = "mean"
    """mean or sum of squared errors over a token's dimensions; always the mean over tokens."""
    auxk: Annotated[int, Meta(ge=0, le=1_000_000)] = 512
    """Dead atoms, at most, that reconstruct the residual in the AuxK loss; 0 leaves it out."""
    # Gao et al. divide AuxK by the residual's own size; the released code does not, nor do we.
    auxk_weight: Annotated[Weight, Paper(0.0)] = 1 / 32
    """Weight of the AuxK loss; 0 leaves it out."""
    dead_after: Annotated[int, Meta(ge=1, le=10**15)] = 10_000_000
    """Tokens without an activation above --dead-threshold after which an atom is dead."""
    dead_threshold: Annotated[float, Meta(ge=0, le=1e6)] = 1e-3
    """Activation above which an atom counts as alive."""
    unit_norm: Annotated[bool, Paper(False)] = True
    """Keep every atom at length 1."""
    tied_init: Annotated[bool, Paper(False)] = True
    """Start the encoder as a copy of the dictionary."""
    clamp: Annotated[bool, Paper(False)] = True
    """Set negative latents to 0 after TopK."""
    learning_rate: Rate = 1e-3
    """Adam's step size."""
    beta1: Annotated[Decay, Paper(0.9)] = 0.5
    """Adam's decay of the mean gradient."""
    beta2: Decay = 0.999
    """Adam's decay of the mean squared gradient."""
    seed: Seed = 111
    """Seed of the initial weights and of the order of tokens."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a field out of range, OptionsDisagree."""
        check_fields(self)
        if self.sparsifier == "topk" and self.k > self.width:
            raise OptionsDisagree(
                f"k = {self.k} latents a token of {self.width} atoms; "
                f"choose k from 1 to {self.width}"
            )
        if self.sparsifier == "topk" and self.l1 != 0:
            raise OptionsDisagree(
                f"l1 = {self.l1} with sparsifier topk, which has no l1 term; "
                "set it to 0 or choose relu"
            )
