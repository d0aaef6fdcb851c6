"""Images and masks as a model takes them, decoded ahead of it by threads.

Threads, not processes: Pillow and hashlib give up the interpreter lock while they work, so two
threads decode as fast as two processes (131 against 91 JPEGs a second, 48 against 43 PNGs, of a
megapixel on two cores), and there is no shared memory to run out of, no child to be killed, and
nothing that a Dask worker may not start.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manifests.files import read_bytes
from manifests.images import decode_image, fit_mask, load_mask
from manifests.table import Manifest
from pipeline.backbones.preprocess import Squash, squash, squash_of
from pipeline.backbones.spec import BackboneSpec
from pipeline.extraction.kept import KeptInputs, Loaded, Size, masks_of
from spg_core.errors import FileChanged


class ModelInput(NamedTuple):
    """One batch, decoded once for all backbones that share it."""

    n_images: int
    pixels: Mapping[Squash, NDArray[Any]]
    """Images `(B, H, W, 3)` as squashed: uint8 or, for some backbones, float32."""
    masks: Mapping[Size, NDArray[np.uint8]]
    """`(B, H, W)` of 0 and 1."""


def model_inputs(
    manifest: Manifest,
    root: Path,
    specs: Sequence[BackboneSpec],
    batch_size: int,
    decoders: ThreadPoolExecutor | None,
    kept: KeptInputs | None = None,
) -> Iterator[ModelInput]:
    """Yield the images of a manifest, or a part of one, as some backbones take them, in batches.

    The decoders begin with all of it at once; without any, each image is decoded when it is due.
    What is `kept` of an earlier decoding is taken from there.

    Raises: DatasetError, as the iterator runs, for a file that is gone or broken; FileChanged for
        one whose bytes are not those whose digest stands in the manifest.
    """
    files, wanted = files_of(manifest), {squash_of(spec): spec for spec in specs}
    load = partial(_load, root, wanted=wanted, kept=kept)
    if decoders is None:
        return _batches(map(load, files), batch_size)
    coming = [decoders.submit(load, one) for one in files]
    return _batches(_ahead(coming), batch_size)


class Files(NamedTuple):
    """The files of one image, relative to the dataset root, with the SHA-256 of their bytes."""

    image_path: str
    image_id: str
    mask_path: str | None
    mask_id: str | None
    height: int
    """Of the image as decoded, in pixels."""
    width: int


def files_of(manifest: Manifest) -> list[Files]:
    """Give the files of each row."""
    table = manifest.table.select(Files._fields)
    return [Files(**row) for row in table.to_pylist()]


def _ahead(coming: list[Future[Loaded]]) -> Iterator[Loaded]:
    try:
        coming.reverse()
        while coming:
            yield coming.pop().result()
    finally:
        for future in coming:
            future.cancel()


def _batches(loaded: Iterator[Loaded], size: int) -> Iterator[ModelInput]:
    batch: list[Loaded] = []
    for one in loaded:
        batch.append(one)
        if len(batch) == size:
            yield _stacked(batch)
            batch = []
    if batch:
        yield _stacked(batch)


def _stacked(batch: list[Loaded]) -> ModelInput:
    first = batch[0]
    return ModelInput(
        len(batch),
        {how: np.stack([one.pixels[how] for one in batch]) for how in first.pixels},
        {size: np.stack([one.masks[size] for one in batch]) for size in first.masks},
    )


def _load(
    root: Path, files: Files, wanted: Mapping[Squash, BackboneSpec], kept: KeptInputs | None
) -> Loaded:
    """Read one image and its mask: the bytes that are decoded are those that are digested."""
    found = None if kept is None else kept.take(files.image_path, files.image_id, files.mask_id)
    if found is not None:
        return found
    path = root / files.image_path
    data = read_bytes(path)
    _require(hashlib.sha256(data).hexdigest(), files.image_id, path)
    image = decode_image(data, str(path), exif=any(spec.exif for spec in wanted.values()))
    squashed = {how: squash(image, spec) for how, spec in wanted.items()}
    sizes = {(how.height, how.width) for how in wanted}
    return Loaded(squashed, load_model_masks(root, files, sizes))


def load_model_masks(root: Path, files: Files, sizes: set[Size]) -> dict[Size, NDArray[np.uint8]]:
    """Give an image's mask `(H, W)` uint8 of 0 and 1, at some sizes. Raises: as `model_inputs`."""
    if files.mask_path is None:
        return masks_of(None, sizes)
    path = root / files.mask_path
    mask = load_mask(path, str(path))
    _require(mask.mask_id, files.mask_id, path)
    return masks_of(fit_mask(mask.pixels, files.height, files.width), sizes)


def _require(found: str, checked: str | None, path: Path) -> None:
    if found != checked:
        raise FileChanged(
            f"{path} changed after it was checked; run the extraction again, it starts from the "
            "images as they are then"
        )
