"""Tokens of a cache as tensors on a device, kept there when they fit.

The batches are those of `cache.stream`, bit for bit: on a GPU that holds all tokens, the same
indices are selected from the copy there, and nothing crosses the bus after the first read.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.layout import IMAGES_PER_SHARD
from cache.order import EpochOrder
from cache.reader import TokenCache
from cache.stream import Order, fits_in_memory, steps_per_epoch, token_batches

# Of a GPU's free memory; the rest is for weights, moments and activations.
_RESIDENT_SHARE = 0.5


class TokenSource:
    """Where fits read tokens and masks from."""

    def __init__(self, cache: TokenCache, device: torch.device, resident: bool | None = None):
        """Open a source; `resident` None keeps the tokens on a GPU where they fit it."""
        self.cache = cache
        self.device = device
        self._tokens: Tensor | None = None
        if _fits(cache, device) if resident is None else resident:
            self._tokens = _load(cache, device)

    @property
    def is_resident(self) -> bool:
        """Whether all tokens lie on the device."""
        return self._tokens is not None

    def batches(
        self, order: Order, batch: int, seed: int, epoch: int, start_step: int = 0
    ) -> Iterator[Tensor]:
        """Yield an epoch's batches `(n, d)` float32 on the device, as `token_batches` orders them.

        `batch` counts images for order `images`, else tokens.
        """
        whole = self._tokens
        # Tokens that do not fit the host are shuffled in windows there, and come from there.
        if whole is None or (order == "tokens" and not self._permuted_whole(batch)):
            for array in token_batches(
                self.cache, order=order, batch=batch, seed=seed, epoch=epoch, start_step=start_step
            ):
                # float16 crosses the bus, float32 would take twice as long
                yield self._send(array).float()
            return
        for step in range(start_step, steps_per_epoch(self.cache, order, batch)):
            yield self._select(whole, order, batch, seed, epoch, step).float()

    def _permuted_whole(self, batch: int) -> bool:
        return fits_in_memory(self.cache, batch, self.cache.memory_bytes)

    def _select(
        self, whole: Tensor, order: Order, batch: int, seed: int, epoch: int, step: int
    ) -> Tensor:
        cache = self.cache
        n_items = cache.n_images if order == "images" else cache.n_tokens
        match order:
            case "sequential":
                return whole[step * batch : (step + 1) * batch]
            case "tokens":
                tokens = EpochOrder(n_items, seed, epoch, "tokens", batch).step(step)
                return self._take(whole, tokens)
            case "images":
                rows = EpochOrder(n_items, seed, epoch, "images", batch).step(step)
                images = whole.view(cache.n_images, -1, cache.d_model)
                return self._take(images, rows).flatten(0, 1)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Give the tokens `(n, patches, d)` of image rows, on the device."""
        if self._tokens is not None:
            return self._take(self._tokens.view(self.cache.n_images, -1, self.cache.d_model), rows)
        return self._send(self.cache.tokens(rows))

    def masks(self, rows: NDArray[np.int64]) -> Tensor:
        """Give the masks `(n, height, width)` uint8 of image rows, on the device."""
        return self._send(self.cache.masks(rows))

    def _take(self, items: Tensor, indices: NDArray[np.int64]) -> Tensor:
        return items.index_select(0, self._send(indices))

    def _send(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        # from pinned memory the copy runs beside the kernels, and nobody waits for it
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _fits(cache: TokenCache, device: torch.device) -> bool:
    if device.type != "cuda":
        return False  # the stream reads mapped files, which are in memory already
    return cache.tokens_bytes <= _RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


def _load(cache: TokenCache, device: torch.device) -> Tensor:
    """Copy all tokens `(n_tokens, d)` float16 to the device, a shard at a time."""
    whole = torch.empty((cache.n_tokens, cache.d_model), dtype=torch.float16, device=device)
    images = whole.view(cache.n_images, -1, cache.d_model)
    for start in range(0, cache.n_images, IMAGES_PER_SHARD):
        rows = np.arange(start, min(start + IMAGES_PER_SHARD, cache.n_images))
        images[start : start + len(rows)] = torch.from_numpy(cache.tokens(rows)).to(device)
    return whole
