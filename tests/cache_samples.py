"""Small caches for tests: deterministic arrays with nothing square, nothing a multiple of 64."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.layout import Geometry
from cache.objects import Objects
from cache.writer import CacheWriter

COVERS: dict[str, Any] = {
    "format": 1,
    "images": {"count": 150, "digest": "0" * 64},
    "backbone": {"name": "gabor", "size": [6, 10], "resize": "bicubic"},
    "stored_dtype": "float16",
}
MANIFEST_BYTES = b"PAR1 stands for any manifest PAR1"


@dataclass(frozen=True)
class Sample:
    geometry: Geometry
    tokens: NDArray[np.float16]
    cls: NDArray[np.float16] | None
    masks: NDArray[np.uint8] | None


def make_sample(
    n_images: int = 150, patches: int = 6, dim: int = 5, extras: bool = True, seed: int = 0
) -> Sample:
    """Random arrays of a cache of 3 shards, the last one short."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(n_images, patches, dim)).astype(np.float16)
    cls = rng.normal(size=(n_images, dim)).astype(np.float16) if extras else None
    masks = (rng.random((n_images, 7, 9)) > 0.8).astype(np.uint8) if extras else None
    geometry = Geometry(
        n_images=n_images,
        tokens_per_image=patches,
        d_model=dim,
        has_cls=extras,
        mask_size=(7, 9) if extras else None,
    )
    return Sample(geometry, tokens, cls, masks)


def new_writer(
    objects: Objects, sample: Sample, covers: dict[str, Any] | None = None
) -> CacheWriter:
    return CacheWriter(objects, "visa", "gabor", covers or COVERS, sample.geometry)


def write_pending(
    writer: CacheWriter, sample: Sample, before_each: Callable[[int], None] = lambda shard: None
) -> None:
    for shard in writer.pending_shards():
        before_each(shard)
        rows = slice(writer.shard_rows(shard).start, writer.shard_rows(shard).stop)
        writer.write_shard(
            shard,
            sample.tokens[rows],
            None if sample.cls is None else sample.cls[rows],
            None if sample.masks is None else sample.masks[rows],
        )


def write_cache(
    objects: Objects, sample: Sample, covers: dict[str, Any] | None = None
) -> CacheWriter:
    writer = new_writer(objects, sample, covers)
    write_pending(writer, sample)
    writer.finish(MANIFEST_BYTES)
    return writer


def folder_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, `cache.json` aside: it holds times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "cache.json"
    }


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
