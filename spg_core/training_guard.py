"""What both trainers refuse: a loss that is not finite, and the state of another training."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spg_core.errors import ArtifactError, FitError

# On CUDA, asking whether a loss is finite waits for the device; so it is asked this often.
_STEPS_BETWEEN_CHECKS = 100


class LossGuard:
    """Refuses a loss that is not finite: on the CPU at once, on CUDA up to 100 steps late."""

    def __init__(self, device: torch.device) -> None:
        """Guard the losses of a training on a device."""
        self._device = device
        # not finite from the first loss that was not
        self._sum = torch.zeros((), device=device)

    def check(self, loss: Tensor, step: int) -> None:
        """Look at the 0-d loss of a step, counted from 1. Raises: FitError."""
        if self._device.type == "cpu":
            _refuse_non_finite(loss, f"step {step}")
            return
        self._sum = self._sum + loss
        if step % _STEPS_BETWEEN_CHECKS == 0:
            self.check_past(step)

    def check_past(self, step: int) -> None:
        """Look at all losses up to a step, as before its weights are kept. Raises: FitError."""
        _refuse_non_finite(self._sum, f"one of the last steps up to step {step}")


def _refuse_non_finite(loss: Tensor, when: str) -> None:
    if not bool(loss.isfinite()):
        raise FitError(
            f"{when}: the loss is {float(loss)}, expected finite tokens and weights; lower "
            "--learning-rate, or look for broken tokens with `spg-pipe cache verify`"
        )


def require_same_shapes(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse a training state that another configuration or version made.

    Raises: ArtifactError that names the first tensor that differs.
    """
    for name in sorted({*expected, *given}):
        ours = tuple(expected[name].shape) if name in expected else "nothing"
        theirs = tuple(given[name].shape) if name in given else "nothing"
        if ours != theirs:
            raise ArtifactError(
                f"a training state holds {theirs} as {name}, expected {ours}; resume with the "
                "configuration and version it was saved under"
            )
