"""A shard's images through the models: a decoded batch after the other, all layers at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.backbones.load import Backbone
from pipeline.backbones.preprocess import normalise, squash_of
from pipeline.extraction.model_inputs import ModelInput


class ShardArrays(NamedTuple):
    """One shard of n images, as `CacheWriter.write_shard` takes it."""

    tokens: NDArray[np.float16]
    """`(n, patch, dim)`."""
    cls: NDArray[np.float16] | None
    """`(n, dim)`."""
    masks: NDArray[np.uint8]
    """`(n, height, width)` of 0 and 1."""


def compute_shard(
    backbones: Sequence[Backbone],
    inputs: Iterator[ModelInput],
    n_images: int,
    advance: Callable[[int], None],
) -> list[ShardArrays]:
    """Take batches from `inputs` until a shard of `n_images` is full.

    Returns: the shard of each layer of each backbone, in their order.
    """
    specs = [spec for backbone in backbones for spec in backbone.specs]
    batches: list[list[ShardArrays]] = []
    n_done = 0
    while n_done < n_images:
        batch = next(inputs)
        batches.append([one for backbone in backbones for one in _forward(backbone, batch)])
        n_done += batch.n_images
        advance(batch.n_images)
    return [_joined([batch[place] for batch in batches]) for place in range(len(specs))]


def _forward(backbone: Backbone, batch: ModelInput) -> list[ShardArrays]:
    """Give what a batch is in each layer of a backbone; layers share their masks."""
    spec = backbone.spec
    pixels = normalise(_on_device(batch.pixels[squash_of(spec)], backbone.device), spec)
    masks = batch.masks[spec.height, spec.width]
    return [
        ShardArrays(_stored(one.tokens), None if one.cls is None else _stored(one.cls), masks)
        for one in backbone.layers(pixels)
    ]


def _stored(tokens: Tensor) -> NDArray[np.float16]:
    stored: NDArray[np.float16] = tokens.to(torch.float16).cpu().numpy()
    return stored


def _joined(batches: Sequence[ShardArrays]) -> ShardArrays:
    classes = [one.cls for one in batches if one.cls is not None]
    return ShardArrays(
        np.concatenate([one.tokens for one in batches]),
        np.concatenate(classes) if classes else None,
        np.concatenate([one.masks for one in batches]),
    )


def _on_device(pixels: NDArray[Any], device: torch.device) -> Tensor:
    """Copy images as they are, a quarter of the floats they become there."""
    images = torch.from_numpy(pixels)
    if device.type == "cpu":  # pinning would wake CUDA, and take GPU memory that nobody uses
        return images
    return images.pin_memory().to(device, non_blocking=True)
