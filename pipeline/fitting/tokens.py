"""Where fits get their batches: tokens of a cache on a device, kept there when they fit.

The batches are those of `cache.stream`, bit for bit: on a GPU that holds all tokens, the same
indices are selected from the copy there, and nothing crosses the bus after the first read.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.layout import IMAGES_PER_SHARD
from cache.order import EpochOrder
from cache.reader import TokenCache
from cache.stream import Order, steps_per_epoch, token_batches, token_order
from pipeline.configs import FitGuidesConfig, FitSaeConfig
from pipeline.inputs import CachedDataset
from pipeline.machine.device import free_bytes, sent, within_memory
from pipeline.terminal.progress import say
from spg_core.errors import FitError

# Of a GPU's free memory; the rest is for weights, moments and activations.
_RESIDENT_SHARE = 0.5
# Of what is free then: decoding masks anew each epoch takes a core longer than a step takes a GPU.
_MASKS_SHARE = 0.25


class TokenSource:
    """Where fits read tokens and masks from."""

    def __init__(self, cache: TokenCache, device: torch.device, resident: bool | None = None):
        """Open a source; `resident` None keeps the tokens on a GPU where they fit it."""
        self.cache = cache
        self.device = device
        self._tokens: Tensor | None = None
        self._masks: Tensor | None = None
        if _fits(cache, device) if resident is None else resident:
            self._tokens = self._kept("tokens", _load)
        self._masks_left = self.is_resident

    @property
    def is_resident(self) -> bool:
        """Whether all tokens lie on the device."""
        return self._tokens is not None

    def _kept(self, what: str, load: Callable[[TokenCache, torch.device], Tensor]) -> Tensor | None:
        try:
            with within_memory(self.cache.where):
                return load(self.cache, self.device)
        except FitError as error:  # another process took the room since it was asked for
            say(f"remark: {error.args[0].partition(';')[0]}; {what} are streamed")
            return None

    def batches(
        self, order: Order, batch: int, seed: int, epoch: int, start_step: int = 0
    ) -> Iterator[Tensor]:
        """Yield an epoch's batches `(n, d)` float32 on the device, as `token_batches` orders them.

        `batch` counts images for order `images`, else tokens.
        """
        whole = self._tokens
        if whole is None:
            for array in token_batches(
                self.cache, order=order, batch=batch, seed=seed, epoch=epoch, start_step=start_step
            ):
                # float16 crosses the bus, float32 would take twice as long
                yield self._send(array).float()
            return
        for chosen in self._selected(whole, order, batch, seed, epoch, start_step):
            yield chosen.float()

    def _selected(
        self, whole: Tensor, order: Order, batch: int, seed: int, epoch: int, start_step: int
    ) -> Iterator[Tensor]:
        cache = self.cache
        steps = range(start_step, steps_per_epoch(cache, order, batch))
        match order:
            case "sequential":
                yield from (whole[step * batch : (step + 1) * batch] for step in steps)
            case "tokens":
                for tokens in token_order(cache, batch, seed, epoch, start_step):
                    yield self._take(whole, tokens)
            case "images":
                rows_of = EpochOrder(cache.n_images, seed, epoch, "images", batch).step
                images = whole.view(cache.n_images, -1, cache.d_model)
                yield from (self._take(images, rows_of(step)).flatten(0, 1) for step in steps)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Give the tokens `(n, patches, d)` of image rows, on the device."""
        if self._tokens is not None:
            return self._take(self._tokens.view(self.cache.n_images, -1, self.cache.d_model), rows)
        return self._send(self.cache.tokens(rows))

    def cls(self, rows: NDArray[np.int64]) -> Tensor:
        """Give the CLS tokens `(n, d)` of image rows, on the device."""
        return self._send(self.cache.cls(rows))

    def labels(self, data: CachedDataset, rows: NDArray[np.int64]) -> Tensor:
        """Give the labels `(n,)` of image rows, 0 normal and 1 anomalous, on the device."""
        return self._send(data.manifest.labels[rows])

    def masks(self, rows: NDArray[np.int64]) -> Tensor:
        """Give the masks `(n, height, width)` uint8 of image rows, on the device.

        Beside tokens that are kept on a GPU they are kept there, too, from the first time on.
        """
        if self._masks_left:
            self._masks_left = False
            if _masks_fit(self.cache, self.device):
                self._masks = self._kept("masks", _load_masks)
        if self._masks is not None:
            return self._take(self._masks, rows)
        return self._send(self.cache.masks(rows))

    def _take(self, items: Tensor, indices: NDArray[np.int64]) -> Tensor:
        return items.index_select(0, self._send(indices))

    def _send(self, array: NDArray[np.generic]) -> Tensor:
        return sent(torch.from_numpy(array), self.device)


def _fits(cache: TokenCache, device: torch.device) -> bool:
    if device.type != "cuda":
        return False  # the stream reads mapped files, which are in memory already
    return cache.tokens_bytes <= _RESIDENT_SHARE * free_bytes(device)


def _masks_fit(cache: TokenCache, device: torch.device) -> bool:
    if device.type != "cuda" or cache.mask_size is None:
        return False
    height, width = cache.mask_size
    return cache.n_images * height * width <= _MASKS_SHARE * free_bytes(device)


def _load(cache: TokenCache, device: torch.device) -> Tensor:
    """Copy all tokens `(n_tokens, d)` float16 to the device, a shard at a time."""
    whole = torch.empty((cache.n_tokens, cache.d_model), dtype=torch.float16, device=device)
    images = whole.view(cache.n_images, -1, cache.d_model)
    for start in range(0, cache.n_images, IMAGES_PER_SHARD):
        rows = np.arange(start, min(start + IMAGES_PER_SHARD, cache.n_images))
        images[start : start + len(rows)] = torch.from_numpy(cache.tokens(rows)).to(device)
    return whole


def _load_masks(cache: TokenCache, device: torch.device) -> Tensor:
    """Copy all masks `(n_images, height, width)` uint8 to the device, a shard at a time."""
    assert cache.mask_size is not None
    whole = torch.empty((cache.n_images, *cache.mask_size), dtype=torch.uint8, device=device)
    for start in range(0, cache.n_images, IMAGES_PER_SHARD):
        rows = np.arange(start, min(start + IMAGES_PER_SHARD, cache.n_images))
        whole[start : start + len(rows)] = sent(torch.from_numpy(cache.masks(rows)), device)
    return whole


def batch_size(cache: TokenCache, config: FitSaeConfig) -> int:
    """Give a batch in the unit of its order: images, or as many tokens as they have."""
    return config.images_per_step * (1 if config.order == "images" else cache.tokens_per_image)


def tokens_a_step(cache: TokenCache, config: FitSaeConfig) -> int:
    """Give the tokens of a whole batch."""
    per_image = cache.tokens_per_image if config.order == "images" else 1
    return min(cache.n_tokens, batch_size(cache, config) * per_image)


def epoch_steps(cache: TokenCache, config: FitSaeConfig) -> int:
    """Give the steps of one epoch of an SAE."""
    return steps_per_epoch(cache, config.order, batch_size(cache, config))


def sae_batches(source: TokenSource, config: FitSaeConfig, first: int) -> Iterator[Tensor]:
    """Yield tokens `(n, d)` float32 from a step on, counted from 0 over all epochs."""
    per_epoch, batch = epoch_steps(source.cache, config), batch_size(source.cache, config)
    for epoch in range(first // per_epoch, config.epochs):
        start = max(0, first - epoch * per_epoch)
        yield from source.batches(config.order, batch, config.seed, epoch, start)


def guide_epoch_steps(cache: TokenCache, config: FitGuidesConfig) -> int:
    """Give the steps of one epoch of guides."""
    return steps_per_epoch(cache, "images", config.images_per_step)


def guide_rows(
    cache: TokenCache, config: FitGuidesConfig, first: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of the images of each batch from a step on, counted over all epochs."""
    per_epoch, n_images = guide_epoch_steps(cache, config), config.images_per_step
    for epoch in range(first // per_epoch, config.epochs):
        order = EpochOrder(cache.n_images, config.seed, epoch, "images", n_images)
        yield from map(order.step, range(max(0, first - epoch * per_epoch), per_epoch))


def require_targets(data: CachedDataset, config: FitGuidesConfig) -> None:
    """Refuse an auxiliary set from which guides on patches, or on CLS tokens, can learn nothing.

    Raises: FitError.
    """
    if config.on == "patches":
        require_defects(data)
        return
    if not data.spec.has_cls:
        raise FitError(
            f"{data.cache.where} holds no CLS tokens, {data.backbone} gives none; fit on patches"
        )
    n_defective = int(data.manifest.labels.sum())
    if n_defective in (0, data.cache.n_images):
        raise FitError(
            f"{n_defective} of {data.cache.n_images} images in {data.cache.where} are defective; "
            "guides on CLS tokens learn from normal and defective ones"
        )


def require_defects(data: CachedDataset) -> None:
    """Refuse an auxiliary set from which nothing can be learnt about defects.

    Raises: FitError.
    """
    masked = int(np.count_nonzero(data.manifest.table["mask_pixels"].to_numpy()))
    if masked == 0:
        n_defective = int(data.manifest.labels.sum())
        raise FitError(
            f"{data.cache.where} has {n_defective} defective images and none with a defect mask; "
            "guides learn from masked defects, so extract the split that holds them (--split test)"
        )
