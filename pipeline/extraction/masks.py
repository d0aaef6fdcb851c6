"""Masks in shards that this run found: are they those of the files as they are now?

The key of a cache covers its images, not its masks, so a run that goes on where another was cut
could complete shards of old masks under the digests of new ones.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.layout import INDEX_BYTES, shard_name
from cache.shard import decode_index, decode_mask
from cache.writer import CacheWriter
from manifests.table import Manifest
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ExtractConfig
from pipeline.extraction.model_inputs import files_of, load_model_masks
from pipeline.machine.cores import n_checkers
from spg_core.errors import ManifestDiffers


def require_masks(
    writer: CacheWriter,
    manifest: Manifest,
    shards: Sequence[int],
    spec: BackboneSpec,
    config: ExtractConfig,
) -> None:
    """Compare the stored masks of some shards with the files.

    Raises: ManifestDiffers naming the first image whose mask is another one; DatasetError,
        FileChanged, CorruptStore.
    """
    root, size = Path(config.root), (spec.height, spec.width)
    with ThreadPoolExecutor(n_checkers(config.decoders)) as pool:
        for shard in shards:
            rows = Manifest(manifest.select(list(writer.shard_rows(shard))))
            ours = pool.map(lambda one: load_model_masks(root, one, {size})[size], files_of(rows))
            stored = _stored_masks(writer, shard)
            for path, mask, theirs in zip(rows.column("image_path"), ours, stored, strict=True):
                if not np.array_equal(mask, theirs):
                    raise ManifestDiffers(
                        f"{writer.where} was begun when the mask of {path} was another one. A "
                        "cache is written once: remove it with `spg-pipe cache gc --remove "
                        f"{writer.key} --delete` and extract again"
                    )


def _stored_masks(writer: CacheWriter, shard: int) -> list[NDArray[np.uint8]]:
    """Read the masks of a shard of a cache that is not complete, `(height, width)` each."""
    size = writer.geometry.mask_size
    assert size is not None
    data = writer.objects.get(f"{writer.folder}/{shard_name('masks', shard)}")
    index = decode_index(data[-INDEX_BYTES:], len(writer.shard_rows(shard)), len(data))
    return [decode_mask(data[start : start + length], size) for start, length in index.tolist()]
