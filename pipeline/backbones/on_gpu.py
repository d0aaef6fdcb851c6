"""A frozen model's forward pass on a GPU: in its compute dtype, in batches that fit its memory."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.backbones.on_cpu import Taken
from pipeline.backbones.precision import computing_in
from pipeline.terminal.progress import say
from spg_core.errors import BackboneError
from spg_core.gpu_memory import lack_by_name, lack_of


class GpuForward:
    """A model that takes smaller batches from the first time that one did not fit.

    Images do not touch each other in a model, so only rounding depends on how many go through
    together.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._most: int | None = None
        """Images at once; None as long as all fitted."""

    def __call__(self, pixels: Tensor, device: torch.device, compute_dtype: str) -> list[Taken]:
        """Give what the model takes of each layer for `(B, 3, H, W)` float32, from anywhere.

        Raises: BackboneError for a GPU that does not hold the model with one image.
        """
        while True:
            size = min(len(pixels), self._most or len(pixels))
            try:
                with lack_by_name(), computing_in(compute_dtype, device.type):
                    return _joined([self._take(part, device) for part in torch.split(pixels, size)])
            except torch.OutOfMemoryError as error:
                reason = lack_of(error)
            self._halve(size, device, reason)

    def _take(self, pixels: Tensor, device: torch.device) -> list[Taken]:
        found: list[Taken] = self._model(pixels.to(device, non_blocking=True))
        return found

    def _halve(self, size: int, device: torch.device, reason: str | None) -> None:
        # not where the error is caught: it holds the frames, and with them their tensors
        torch.cuda.empty_cache()
        if size == 1:
            raise BackboneError(
                f"the model with one image does not fit {device} ({reason}); free its "
                "memory, or use a smaller --image-size or --device cpu"
            )
        self._most = size // 2
        say(f"remark: {size} images do not fit {device}; now {self._most} at a time")


def _joined(parts: list[list[Taken]]) -> list[Taken]:
    return (
        parts[0]
        if len(parts) == 1
        else [_joined_layer(layer) for layer in zip(*parts, strict=True)]
    )


def _joined_layer(parts: Sequence[Taken]) -> Taken:
    classes = [cls for _, cls in parts if cls is not None]
    return torch.cat([tokens for tokens, _ in parts]), torch.cat(classes) if classes else None
