"""Shards: what a process does for an extraction, in this one or in a Dask worker alike.

A shard of 64 images is read, computed and published. Three are under way at a time: one is in the
model, which has a thread of its own, while the images of the next are decoded and the last is
written. A batch never crosses a shard's border, so what a shard holds does not depend on where a
run was cut, nor on who computes it. A shard's work carries the few rows of the manifest that it is
about: done twice, the second finds the shard published.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.key import images_digest
from cache.layout import FORMAT_VERSION, RECORD, Geometry, receipt_name
from cache.objects import Objects
from cache.writer import CacheWriter
from manifests.table import Manifest
from pipeline.backbones.load import Backbone, load_backbone
from pipeline.backbones.preprocess import normalise
from pipeline.backbones.spec import BackboneSpec, slug
from pipeline.configs import ExtractConfig
from pipeline.device import resolve_device
from pipeline.extraction.model_inputs import ModelInput, model_inputs
from spg_core.errors import DatasetError

AT_ONCE = 3
"""Shards under way in a process: one is read, one computed, one written."""
_PROBE_IMAGES = 4


class ShardArrays(NamedTuple):
    """One shard of n images, as `CacheWriter.write_shard` takes it."""

    tokens: NDArray[np.float16]
    """`(n, patch, dim)`."""
    cls: NDArray[np.float16] | None
    """`(n, dim)`."""
    masks: NDArray[np.uint8]
    """`(n, height, width)` of 0 and 1."""


@dataclass(frozen=True)
class Shard:
    """One shard to be made."""

    number: int
    rows: Manifest
    """Its rows of the manifest."""
    distrust: bool
    """Whether a receipt lay there from the start that does not fit what is stored."""


class Made(NamedTuple):
    """What became of a shard."""

    number: int
    n_images: int
    is_ours: bool
    """Whether it was made here, and not found."""
    vanished: list[str]
    """Images with a defect that has no pixel at the input size."""


class ShardMaker:
    """In a process: the store, the model, and the threads around it; opened once."""

    def __init__(self, store: Objects, config: ExtractConfig, backbone: Backbone) -> None:
        self.store, self.config, self.backbone = store, config, backbone
        self.writer: CacheWriter | None = None
        self.advance: Callable[[int], None] = lambda n_images: None
        self.ended = Event()
        self.decoders = ThreadPoolExecutor(config.decoders) if config.decoders else None
        self.model = ThreadPoolExecutor(1)

    def close(self) -> None:
        """Let what is under way end after the batch that is in the model."""
        self.ended.set()
        for pool in (self.decoders, self.model):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)


def open_extract_job(store: Objects, config: ExtractConfig) -> ShardMaker:
    """Check the image folder, load the model.

    Raises: DatasetError, BackboneError, ConfigError: what this process lacks.
    """
    if not Path(config.root).is_dir():
        raise DatasetError(
            f"{config.root}: no such folder here; every worker reads images from there"
        )
    return ShardMaker(store, config, open_backbone(config))


def open_backbone(config: ExtractConfig) -> Backbone:
    """Load the backbone that a config names, on its device."""
    return load_backbone(
        config.backbone,
        image_size=config.image_size,
        layer=config.layer,
        final_norm=config.final_norm,
        weights=Path(config.weights) if config.weights else None,
        resize_filter=config.resize_filter,
        device=str(resolve_device(config.device)),
        compute_dtype=config.compute_dtype,
        exif=config.exif,
    )


def describe(maker: ShardMaker) -> tuple[BackboneSpec, str]:
    """Say what the model is and where it runs."""
    return maker.backbone.spec, str(maker.backbone.device)


def seconds_an_image(maker: ShardMaker) -> float:
    """Measure the model with one small batch."""
    spec = maker.backbone.spec
    n_images = min(_PROBE_IMAGES, maker.config.batch_size)
    maker.backbone(torch.zeros(1, 3, spec.height, spec.width))  # the first is slow
    start = perf_counter()
    maker.backbone(torch.zeros(n_images, 3, spec.height, spec.width))
    return (perf_counter() - start) / n_images


def covers_of(manifest: Manifest, spec: BackboneSpec) -> dict[str, Any]:
    """Give what the cache key covers: the images in order, the backbone, the stored format."""
    image_ids = [str(image_id) for image_id in manifest.column("image_id")]
    return {
        "format": FORMAT_VERSION,
        "images": {"count": len(image_ids), "sha256": images_digest(image_ids)},
        "backbone": spec.covers(),
        "stored_dtype": "float16",
    }


def open_writer(
    store: Objects, config: ExtractConfig, manifest: Manifest, spec: BackboneSpec
) -> CacheWriter:
    """Open the cache that these images and this backbone make; nothing is written yet."""
    geometry = Geometry(
        n_images=manifest.n_images,
        tokens_per_image=spec.grid.tokens_per_image,
        d_model=spec.d_model,
        has_cls=spec.has_cls,
        mask_size=(spec.height, spec.width),
    )
    dataset = config.name or config.dataset
    return CacheWriter(store, dataset, slug(spec.name), covers_of(manifest, spec), geometry)


def make_shard(maker: ShardMaker, writer: CacheWriter, shard: Shard) -> Made:
    """Compute and publish one shard, unless others have.

    Args:
        maker: what this process has opened.
        writer: of the cache; the first one that came is kept, it checks the store once.
        shard: which.
    """
    if maker.writer is None or maker.writer.folder != writer.folder:
        maker.writer = writer
    n_images = shard.rows.n_images
    arrays = None
    if not _is_done_meanwhile(maker.writer, shard):
        config, spec = maker.config, maker.backbone.spec
        inputs = model_inputs(
            shard.rows, Path(config.root), spec, config.batch_size, maker.decoders
        )
        arrays = maker.model.submit(_compute, maker, maker.writer, shard, inputs).result()
    if arrays is None:
        maker.advance(n_images)
        return Made(shard.number, n_images, False, [])
    maker.writer.write_shard(shard.number, *arrays)
    return Made(shard.number, n_images, True, _vanished_defects(shard.rows, arrays.masks))


def _compute(
    maker: ShardMaker, writer: CacheWriter, shard: Shard, inputs: Iterator[ModelInput]
) -> ShardArrays | None:
    """In the model's thread: compute a shard, or find that it was done while it waited."""
    if _is_done_meanwhile(writer, shard):
        return None
    return compute_shard(
        maker.backbone, _until(maker.ended, inputs), shard.rows.n_images, maker.advance
    )


def _until(ended: Event, inputs: Iterator[ModelInput]) -> Iterator[ModelInput]:
    for batch in inputs:
        if ended.is_set():
            raise CancelledError
        yield batch


def compute_shard(
    backbone: Backbone,
    inputs: Iterator[ModelInput],
    n_images: int,
    advance: Callable[[int], None],
) -> ShardArrays:
    """Take batches from `inputs` until a shard of `n_images` is full."""
    tokens, cls, masks = [], [], []
    n_done = 0
    while n_done < n_images:
        batch = next(inputs)
        out = backbone(normalise(_on_device(batch.pixels, backbone.device), backbone.spec))
        tokens.append(out.tokens.to(torch.float16).cpu().numpy())
        if out.cls is not None:
            cls.append(out.cls.to(torch.float16).cpu().numpy())
        masks.append(batch.masks)
        n_done += len(batch.masks)
        advance(len(batch.masks))
    return ShardArrays(
        np.concatenate(tokens), np.concatenate(cls) if cls else None, np.concatenate(masks)
    )


def _vanished_defects(rows: Manifest, masks: NDArray[np.uint8]) -> list[str]:
    pairs = zip(rows.column("image_path"), rows.column("mask_pixels"), masks, strict=True)
    return [str(path) for path, native, mask in pairs if native and not mask.any()]


def _on_device(pixels: NDArray[Any], device: torch.device) -> Tensor:
    """Copy images as they are, a quarter of the floats they become there."""
    images = torch.from_numpy(pixels)
    if device.type == "cpu":  # pinning would wake CUDA, and take GPU memory that nobody uses
        return images
    return images.pin_memory().to(device, non_blocking=True)


def has_receipt(writer: CacheWriter, shard: int) -> bool:
    """Tell whether somebody says that a shard is written."""
    return writer.objects.size(f"{writer.folder}/{receipt_name(shard)}") is not None


def _is_done_meanwhile(writer: CacheWriter, shard: Shard) -> bool:
    """Tell whether a shard that had no receipt has been written since."""
    return not shard.distrust and (
        has_receipt(writer, shard.number)
        or writer.objects.size(f"{writer.folder}/{RECORD}") is not None
    )
