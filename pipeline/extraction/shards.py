"""Shards: what a process does for an extraction, in this one or in a Dask worker alike.

A shard of 64 images is read once, and computed and published for every cache that lacks it: one a
backbone and layer. Three shards are under way at a time: one is in the models, which have one
thread, while the images of the next are decoded and the last is written. A batch never crosses a
shard's border, so what a shard holds does not depend on where a run was cut, nor on who computes
it. A shard's work carries the few rows of the manifest that it is about: done twice, the second
finds the shard published.
"""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import NamedTuple

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
from pipeline.extraction.compute import ShardArrays, compute_shard
from pipeline.extraction.kept import Size
from pipeline.extraction.maker import ShardMaker
from pipeline.extraction.model_inputs import ModelInput, model_inputs
from pipeline.machine.device import resolve_device
from spg_core.errors import DatasetError

AT_ONCE = 3
"""Shards under way in a process: one is read, one computed, one written."""
_PROBE_IMAGES = 4


@dataclass(frozen=True)
class Shard:
    """One shard to be made."""

    number: int
    rows: Manifest
    """Its rows of the manifest."""
    lacking: tuple[int, ...]
    """The caches that lack it, by their places among those of the run."""
    distrusted: frozenset[int]
    """Those where a receipt lay from the start that does not fit what is stored."""


class Made(NamedTuple):
    """What became of a shard."""

    number: int
    n_images: int
    ours: tuple[int, ...]
    """The caches it was made for here, and not found in."""
    vanished: dict[Size, list[str]]
    """By input size, images with a defect that has no pixel there."""


def open_extract_job(store: Objects, config: ExtractConfig) -> ShardMaker:
    """Check the image folder, load the models.

    Raises: DatasetError, BackboneError, ConfigError: what this process lacks.
    """
    if not Path(config.root).is_dir():
        raise DatasetError(
            f"{config.root}: no such folder here; every worker reads images from there"
        )
    return ShardMaker(store, config, [open_backbone(config, name) for name in config.backbone])


def open_backbone(config: ExtractConfig, name: str) -> Backbone:
    """Load one of the backbones that a config names, for its layers, on its device."""
    return load_backbone(
        name,
        image_size=config.image_size,
        layer=config.layer or None,
        final_norm=config.final_norm,
        weights=config.weights_of(name),
        resize_filter=config.resize_filter,
        device=str(resolve_device(config.device)),
        compute_dtype=config.compute_dtype,
        exif=config.exif,
    )


def describe(maker: ShardMaker) -> tuple[list[BackboneSpec], str]:
    """Say what each cache will hold, and where the models run."""
    specs = [spec for backbone in maker.backbones for spec in backbone.specs]
    return specs, str(maker.backbones[0].device)


def seconds_an_image(maker: ShardMaker, caches: Collection[int]) -> float:
    """Measure the models that make some caches, with one small batch each."""
    n_images = min(_PROBE_IMAGES, maker.config.batch_size)
    seconds = 0.0
    for backbone in maker.of(caches):
        _seconds(backbone, 1)  # the first is slow
        seconds += _seconds(backbone, n_images) / n_images
    return seconds


def _seconds(backbone: Backbone, n_images: int) -> float:
    pixels = torch.zeros(n_images, 3, backbone.spec.height, backbone.spec.width)
    start = perf_counter()
    *_, last = backbone.layers(pixels)
    float(last.tokens[-1, -1, -1])  # waits for a GPU, which has only been told what to do
    return perf_counter() - start


def covers_of(manifest: Manifest, spec: BackboneSpec) -> dict[str, object]:
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


def make_shard(maker: ShardMaker, writers: Sequence[CacheWriter], shard: Shard) -> Made:
    """Compute and publish one shard of every cache that lacks it, unless others have.

    Args:
        maker: what this process has opened.
        writers: of all caches of the run; the first ones that came are kept.
        shard: which.
    """
    writers, n_images = maker.keep(writers), shard.rows.n_images
    made: dict[int, ShardArrays] = {}
    if lacking := _still_lacking(writers, shard):
        config, specs = maker.config, [one.spec for one in maker.of(lacking)]
        inputs = model_inputs(
            shard.rows, Path(config.root), specs, config.batch_size, maker.decoders, maker.kept
        )
        made = maker.model.submit(_compute, maker, writers, shard, inputs).result()
    if not made:
        maker.advance(n_images)
    for cache, arrays in made.items():
        writers[cache].write_shard(shard.number, *arrays)
    masks = {arrays.masks.shape[1:]: arrays.masks for arrays in made.values()}
    vanished = {size: _vanished_defects(shard.rows, one) for size, one in masks.items()}
    return Made(shard.number, n_images, tuple(made), vanished)


def _compute(
    maker: ShardMaker,
    writers: Sequence[CacheWriter],
    shard: Shard,
    inputs: Iterator[ModelInput],
) -> dict[int, ShardArrays]:
    """In the models' thread: compute a shard for the caches that did not get it meanwhile."""
    lacking = _still_lacking(writers, shard)
    if not lacking:
        return {}
    found = compute_shard(
        maker.of(lacking), _until(maker.ended, inputs), shard.rows.n_images, maker.advance
    )
    return dict(zip(lacking, found, strict=True))


def _until(ended: Event, inputs: Iterator[ModelInput]) -> Iterator[ModelInput]:
    for batch in inputs:
        if ended.is_set():
            raise CancelledError
        yield batch


def _vanished_defects(rows: Manifest, masks: NDArray[np.uint8]) -> list[str]:
    pairs = zip(rows.column("image_path"), rows.column("mask_pixels"), masks, strict=True)
    return [str(path) for path, native, mask in pairs if native and not mask.any()]


def _still_lacking(writers: Sequence[CacheWriter], shard: Shard) -> list[int]:
    """Give the caches in which a shard that had no receipt has not been written since."""
    return [
        cache
        for cache in shard.lacking
        if cache in shard.distrusted or not _is_written(writers[cache], shard.number)
    ]


def _is_written(writer: CacheWriter, shard: int) -> bool:
    """Tell whether somebody says so: a receipt, or the record, for which receipts are dropped."""
    names = (receipt_name(shard), RECORD)
    return any(writer.objects.size(f"{writer.folder}/{name}") is not None for name in names)
