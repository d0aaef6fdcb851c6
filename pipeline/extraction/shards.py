"""The heavy half of an extraction: run the backbone shard by shard and publish what it gives.

A shard of 64 images is computed, then written, while the next one is being computed. A batch never
crosses a shard's border, so what a shard holds does not depend on where a run was cut, nor on who
computes it: `pipeline.extraction.on_workers` has the same done by Dask workers.
"""

import secrets
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cache.key import images_digest
from cache.layout import FORMAT_VERSION, RECORD, Geometry, receipt_name
from cache.objects import Objects
from cache.writer import CacheWriter
from manifests.table import Manifest
from pipeline.backbones.load import Backbone, load_backbone
from pipeline.backbones.spec import BackboneSpec, slug
from pipeline.configs import ExtractConfig
from pipeline.device import resolve_device
from pipeline.extraction.finish import finish, warn_of_vanished
from pipeline.extraction.model_inputs import ModelInput, model_inputs
from pipeline.progress import Advance, bar, counting, human_bytes, human_seconds, say

_PROBE_IMAGES = 4


@dataclass(frozen=True)
class Written:
    """What a run wrote: the cache, and how many shards of it."""

    key: str
    path: str
    n_shards: int


class ShardArrays(NamedTuple):
    """One shard of n images, as `CacheWriter.write_shard` takes it."""

    tokens: NDArray[np.float16]
    """`(n, patch, dim)`."""
    cls: NDArray[np.float16] | None
    """`(n, dim)`."""
    masks: NDArray[np.uint8]
    """`(n, height, width)` of 0 and 1."""


def extract_shards(store: Objects, config: ExtractConfig, manifest: Manifest) -> Written:
    """Compute and publish every shard that is not there yet, then finish the cache.

    Raises: BackboneError, DatasetError, StoreError: naming what is wrong and what to do.
    """
    backbone = open_backbone(config)
    writer = open_writer(store, config, manifest, backbone.spec)
    with counting("Checking what is there") as progress:
        pending = writer.pending_shards(progress)
    if pending:
        announce(writer, pending)
        writer.check_free_space()
        store.check_writable()
        _estimate(writer, backbone, pending, config)
    start = perf_counter()
    vanished = _write_shards(writer, backbone, manifest, pending, config) if pending else []
    finish(writer, manifest, perf_counter() - start, str(backbone.device))
    warn_of_vanished(vanished, backbone.spec.height, backbone.spec.width)
    return Written(writer.key, writer.where, len(pending))


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


def _write_shards(
    writer: CacheWriter,
    backbone: Backbone,
    manifest: Manifest,
    pending: list[int],
    config: ExtractConfig,
) -> list[str]:
    """Compute and publish the pending shards; give the images whose defect vanished."""
    coming: deque[int] = deque()
    vanished: list[str] = []
    with (
        bar(f"Extracting {backbone.spec.name}", _n_images(writer, pending)) as advance,
        ThreadPoolExecutor(1) as pool,
    ):
        rows = _rows_to_do(writer, pending, coming, advance)
        inputs = model_inputs(manifest, Path(config.root), backbone.spec, rows, config)
        written: Future[None] | None = None
        while (first := next(inputs, None)) is not None:
            shard = coming.popleft()
            shard_rows = writer.shard_rows(shard)
            arrays = compute_shard(backbone, chain([first], inputs), len(shard_rows), advance)
            vanished += vanished_defects(manifest, shard_rows, arrays.masks)
            if written is not None:
                written.result()
            written = pool.submit(writer.write_shard, shard, *arrays)
        if written is not None:
            written.result()
    return vanished


def _rows_to_do(
    writer: CacheWriter, pending: list[int], coming: deque[int], advance: Advance
) -> Iterator[list[int]]:
    """Yield the rows of one shard after the other, leaving out what others finish meanwhile.

    Starts anywhere in the list, so that two people who start at once meet half-way and do not do
    everything twice. What is yielded is also put into `coming`.
    """
    trusted = {shard for shard in pending if not has_receipt(writer, shard)}
    start = secrets.randbelow(len(pending))
    for shard in pending[start:] + pending[:start]:
        rows = list(writer.shard_rows(shard))
        if shard in trusted and is_done_meanwhile(writer, shard):
            advance(len(rows))
            continue
        coming.append(shard)
        yield rows


def has_receipt(writer: CacheWriter, shard: int) -> bool:
    """Tell whether somebody says that a shard is written."""
    return writer.objects.size(f"{writer.folder}/{receipt_name(shard)}") is not None


def is_done_meanwhile(writer: CacheWriter, shard: int) -> bool:
    """Tell whether a shard that had no receipt has been written since."""
    return (
        has_receipt(writer, shard) or writer.objects.size(f"{writer.folder}/{RECORD}") is not None
    )


def vanished_defects(manifest: Manifest, rows: range, masks: NDArray[np.uint8]) -> list[str]:
    """Give the images of a shard that have a defect but no defective pixel at the input size."""
    table = manifest.select(list(rows))
    paths, pixels = table["image_path"].to_pylist(), table["mask_pixels"].to_pylist()
    return [
        str(path)
        for path, native, mask in zip(paths, pixels, masks, strict=True)
        if native and not mask.any()
    ]


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
        out = backbone(batch.pixels)
        tokens.append(out.tokens.to(torch.float16).cpu().numpy())
        if out.cls is not None:
            cls.append(out.cls.to(torch.float16).cpu().numpy())
        masks.append(batch.masks)
        n_done += len(batch.masks)
        advance(len(batch.masks))
    return ShardArrays(
        np.concatenate(tokens), np.concatenate(cls) if cls else None, np.concatenate(masks)
    )


def announce(writer: CacheWriter, pending: list[int]) -> None:
    """Say what is about to happen: images, tokens, bytes."""
    geometry = writer.geometry
    height, width = geometry.mask_size or (0, 0)
    say(
        f"{writer.where}\n{geometry.n_images} images of {height} x {width} -> "
        f"{geometry.tokens_per_image} tokens of {geometry.d_model}: "
        f"{human_bytes(writer.estimated_bytes)}"
    )
    n_pending = _n_images(writer, pending)
    if n_pending < geometry.n_images:
        say(f"{geometry.n_images - n_pending} images are there already; {n_pending} to go")


def _estimate(
    writer: CacheWriter, backbone: Backbone, pending: list[int], config: ExtractConfig
) -> None:
    """Say how long it will take, measured on this machine with one small batch."""
    n_pending = _n_images(writer, pending)
    n_probe = min(_PROBE_IMAGES, config.batch_size, n_pending)
    backbone(torch.zeros(1, 3, backbone.spec.height, backbone.spec.width))  # the first is slow
    start = perf_counter()
    backbone(torch.zeros(n_probe, 3, backbone.spec.height, backbone.spec.width))
    seconds = (perf_counter() - start) / n_probe * n_pending
    say(f"about {human_seconds(seconds)} on {backbone.device}")


def _n_images(writer: CacheWriter, shards: list[int]) -> int:
    return sum(len(writer.shard_rows(shard)) for shard in shards)
