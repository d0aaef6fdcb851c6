"""A shard's images through the models: a decoded batch after the other, all layers at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.backbones.load import Backbone, BackboneSpec, PatchTokens
from pipeline.backbones.preprocess import normalise, squash_of
from pipeline.extraction.model_inputs import ModelInput
from pipeline.machine.device import by_halves, sent


class ShardArrays(NamedTuple):
    """One shard of n images, as `CacheWriter.write_shard` takes it."""

    tokens: NDArray[np.float16]
    """`(n, patch, dim)`."""
    cls: NDArray[np.float16] | None
    """`(n, dim)`."""
    masks: NDArray[np.uint8]
    """`(n, height, width)` of 0 and 1."""


class _Filling(NamedTuple):
    """A shard of a layer that batches are copied into; pinned, where they come from a GPU."""

    tokens: Tensor
    """`(n, patch, dim)` float16."""
    cls: Tensor | None
    masks: NDArray[np.uint8]

    def take(self, done: int, found: PatchTokens, masks: NDArray[np.uint8]) -> None:
        """Take a batch behind the `done` images that are there; on a GPU, nobody waits for it."""
        place = slice(done, done + len(masks))
        self.tokens[place].copy_(found.tokens.to(torch.float16), non_blocking=True)
        if self.cls is not None and found.cls is not None:
            self.cls[place].copy_(found.cls.to(torch.float16), non_blocking=True)
        self.masks[place] = masks

    def arrays(self) -> ShardArrays:
        """Give it as NumPy's arrays."""
        return ShardArrays(
            self.tokens.numpy(), None if self.cls is None else self.cls.numpy(), self.masks
        )


def compute_shard(
    backbones: Sequence[Backbone],
    inputs: Iterator[ModelInput],
    n_images: int,
    advance: Callable[[int], None],
) -> list[ShardArrays]:
    """Take batches from `inputs` until a shard of `n_images` is full.

    Returns: the shard of each layer of each backbone, in their order.
    """
    sizes = {(one.spec.height, one.spec.width) for one in backbones}
    masks = {size: np.empty((n_images, *size), np.uint8) for size in sizes}
    shards = [
        [_empty(spec, masks[spec.height, spec.width], one.device) for spec in one.specs]
        for one in backbones
    ]
    n_done = 0
    while n_done < n_images:
        batch = next(inputs)
        for backbone, layers in zip(backbones, shards, strict=True):
            _forward(backbone, batch, layers, n_done)
        n_done += batch.n_images
        advance(batch.n_images)
    for device in {backbone.device for backbone in backbones} - {torch.device("cpu")}:
        torch.cuda.current_stream(device).synchronize()  # the copies are under way until now
    return [layer.arrays() for layers in shards for layer in layers]


def _empty(spec: BackboneSpec, masks: NDArray[np.uint8], device: torch.device) -> _Filling:
    """Give a layer's shard of as many images as there are masks, which layers share."""

    def memory(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float16, pin_memory=device.type == "cuda")

    n_images = len(masks)
    tokens = memory(n_images, spec.grid.tokens_per_image, spec.d_model)
    return _Filling(tokens, memory(n_images, spec.d_model) if spec.has_cls else None, masks)


def _forward(backbone: Backbone, batch: ModelInput, layers: Sequence[_Filling], done: int) -> None:
    """Copy what a batch is in each layer of a backbone to its place; layers share their masks."""
    spec, device = backbone.spec, backbone.device
    images = torch.from_numpy(batch.pixels[squash_of(spec)])
    masks = batch.masks[spec.height, spec.width]

    def take(here: slice) -> None:
        pixels = normalise(sent(images[here], device), spec)
        for layer, found in zip(layers, backbone.layers(pixels), strict=True):
            layer.take(done + here.start, found, masks[here])

    by_halves(f"extracting {spec.name}", batch.n_images, batch.n_images, device, take)
