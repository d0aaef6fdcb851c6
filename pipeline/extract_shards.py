"""The heavy half of an extraction: run the backbone shard by shard and publish what it gives.

A shard of 64 images is computed, then written, while the next one is being computed. A batch never
crosses a shard's border, so what a shard holds does not depend on where a run was cut.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cache.key import images_digest
from cache.layout import FORMAT_VERSION, MANIFEST, Geometry
from cache.objects import Objects
from cache.writer import CacheWriter, ManifestDiffers
from manifests.table import Manifest, manifest_from_bytes, manifest_to_bytes
from pipeline.backbone_spec import BackboneSpec, slug
from pipeline.backbones import Backbone, load_backbone
from pipeline.configs import ExtractConfig
from pipeline.device import resolve_device
from pipeline.model_inputs import ModelInput, model_inputs
from pipeline.progress import bar, human_bytes, human_seconds, say
from pipeline.versions import library_versions

_PROBE_IMAGES = 4


@dataclass(frozen=True)
class Written:
    """What a run wrote: the cache, and how many shards of it."""

    key: str
    path: str
    n_shards: int


def extract_shards(store: Objects, config: ExtractConfig, manifest: Manifest) -> Written:
    """Compute and publish every shard that is not there yet, then finish the cache.

    Raises: BackboneError, DatasetError, StoreError: naming what is wrong and what to do.
    """
    backbone = open_backbone(config)
    writer = open_writer(store, config, manifest, backbone.spec)
    pending = writer.pending_shards()
    if writer.state() != "complete":
        _announce(writer, backbone, pending, config)
        writer.check_free_space()
    start = perf_counter()
    vanished = _write_shards(writer, backbone, manifest, pending, config)
    _finish(writer, manifest, perf_counter() - start, str(backbone.device))
    if vanished:
        names = ", ".join(vanished[:5]) + (" ..." if len(vanished) > 5 else "")
        say(
            f"warning: {len(vanished)} defects vanish at {backbone.spec.height} x "
            f"{backbone.spec.width} pixels and stay without a defective pixel: {names}"
        )
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
    rows = [list(writer.shard_rows(shard)) for shard in pending]
    vanished: list[str] = []
    if not rows:
        return vanished
    inputs = model_inputs(manifest, Path(config.root), backbone.spec, rows, config)
    paths = [str(path) for path in manifest.column("image_path")]
    with (
        bar(f"Extracting {backbone.spec.name}", sum(map(len, rows))) as advance,
        ThreadPoolExecutor(1) as pool,
    ):
        written: Future[None] | None = None
        for shard, shard_rows in zip(pending, rows, strict=True):
            arrays = compute_shard(backbone, inputs, len(shard_rows), advance)
            vanished += [
                paths[row]
                for row, mask in zip(shard_rows, arrays[2], strict=True)
                if manifest.table["mask_pixels"][row].as_py() > 0 and not mask.any()
            ]
            if written is not None:
                written.result()
            written = pool.submit(writer.write_shard, shard, *arrays)
        if written is not None:
            written.result()
    return vanished


def compute_shard(
    backbone: Backbone,
    inputs: Iterator[ModelInput],
    n_images: int,
    advance: Callable[[int], None],
) -> tuple[NDArray[np.float16], NDArray[np.float16] | None, NDArray[np.uint8]]:
    """Take batches from `inputs` until a shard is full.

    Returns: tokens `(n, patch, dim)` float16, cls `(n, dim)` float16 or None, masks
        `(n, height, width)` uint8.
    """
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
    return np.concatenate(tokens), np.concatenate(cls) if cls else None, np.concatenate(masks)


def _announce(
    writer: CacheWriter, backbone: Backbone, pending: list[int], config: ExtractConfig
) -> None:
    """Say what is about to happen: images, bytes, and a time measured on this machine."""
    n_pending = sum(len(writer.shard_rows(shard)) for shard in pending)
    spec = backbone.spec
    say(
        f"{writer.where}\n{writer.geometry.n_images} images of {spec.height} x {spec.width} -> "
        f"{spec.grid} tokens of {spec.d_model}: {human_bytes(writer.estimated_bytes)}"
    )
    n_done = writer.geometry.n_images - n_pending
    if n_done:
        say(f"{n_done} images are there already; {n_pending} to go")
    n_probe = min(_PROBE_IMAGES, config.batch_size, n_pending)
    if n_probe:
        start = perf_counter()
        backbone(torch.zeros(n_probe, 3, spec.height, spec.width))
        seconds = (perf_counter() - start) / n_probe * n_pending
        say(f"about {human_seconds(seconds)} on {backbone.device}")


def _finish(writer: CacheWriter, manifest: Manifest, seconds: float, device: str) -> None:
    """Publish manifest and record; explain a cache whose labels or masks are not ours.

    A manifest with the same rows but other bytes (another version of the Parquet library made it)
    is taken as it is.
    """
    data = manifest_to_bytes(manifest)
    name = f"{writer.folder}/{MANIFEST}"
    if writer.objects.size(name) is not None:
        stored = writer.objects.get(name)
        theirs = manifest_from_bytes(stored, f"{writer.objects.where}/{name}")
        change = describe_change(theirs.table, manifest.table)
        if change is not None:
            raise ManifestDiffers(
                f"{writer.where} holds tokens of the same images, but {change}. A cache is written "
                f"once: use it as it is, or remove it with `spg-pipe cache gc --remove "
                f"{writer.key}` and extract again"
            )
        data = stored
    timings = {"seconds": round(seconds, 3), "device": device}
    writer.finish(data, versions=library_versions(), timings=timings)


def describe_change(stored: pa.Table, ours: pa.Table) -> str | None:
    """Say in which column two manifests of the same images differ; None where they do not."""
    if stored.column_names != ours.column_names:
        more = sorted(set(stored.column_names) ^ set(ours.column_names))
        return f"its manifest and yours do not both have the column {', '.join(more)}"
    for name in ours.column_names:
        pairs = zip(stored[name].to_pylist(), ours[name].to_pylist(), strict=True)
        rows = [row for row, (theirs, mine) in enumerate(pairs) if theirs != mine]
        if rows:
            image = ours["image_path"][rows[0]].as_py()
            return f"{name} is another one for {len(rows)} of them (first {image})"
    return None
