"""Images and masks as a model takes them, decoded ahead of it by worker processes."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from manifests.images import decode_image, fit_mask, read_bytes, read_mask, resize_mask
from manifests.table import Manifest
from pipeline.backbones.preprocess import preprocess
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ExtractConfig
from spg_core.errors import DatasetError


class ModelInput(NamedTuple):
    """One batch: pixels `(B, 3, H, W)` float32 normalised, masks `(B, H, W)` uint8 of 0 and 1."""

    pixels: Tensor
    masks: NDArray[np.uint8]


def model_inputs(
    manifest: Manifest,
    root: Path,
    spec: BackboneSpec,
    shards: Iterable[Sequence[int]],
    config: ExtractConfig,
) -> Iterator[ModelInput]:
    """Yield the images of the given shards (lists of rows) in order, in batches within a shard.

    Shards are asked for one by one, a few batches ahead of what is yielded.

    Raises: DatasetError, as the iterator runs, for a file that is gone, broken, or no longer the
        one whose digest stands in the manifest.
    """
    size = config.batch_size
    batches = (
        list(rows[start : start + size]) for rows in shards for start in range(0, len(rows), size)
    )
    loader = DataLoader(
        _Items(manifest, root, spec),
        batch_sampler=batches,
        num_workers=config.decoders,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )
    for pixels, masks, problem in loader:
        if problem:
            raise DatasetError(problem)
        yield ModelInput(pixels, masks.numpy())


_Item = tuple[Tensor, Tensor, str]


class _Items(Dataset[_Item]):
    """Rows of a manifest; a problem travels as text, since worker processes garble exceptions."""

    def __init__(self, manifest: Manifest, root: Path, spec: BackboneSpec) -> None:
        self._root, self._spec = root, spec
        self._images = [str(path) for path in manifest.column("image_path")]
        self._masks = [None if path is None else str(path) for path in manifest.column("mask_path")]
        self._ids = [str(image_id) for image_id in manifest.column("image_id")]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> _Item:
        spec = self._spec
        try:
            return self._load(row)
        except DatasetError as error:
            empty = torch.zeros(3, spec.height, spec.width)
            return empty, torch.zeros(spec.height, spec.width, dtype=torch.uint8), str(error)

    def _load(self, row: int) -> _Item:
        spec = self._spec
        path = self._root / self._images[row]
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != self._ids[row]:
            raise DatasetError(
                f"{path} changed after it was checked; run the extraction again, it starts from "
                "the images as they are then"
            )
        image = decode_image(data, str(path), exif=spec.exif)
        pixels = preprocess(image, spec)
        mask_path = self._masks[row]
        if mask_path is None:
            mask = np.zeros((spec.height, spec.width), np.uint8)
        else:
            native = fit_mask(read_mask(self._root / mask_path), image.height, image.width)
            mask = resize_mask(native, spec.height, spec.width)
        return pixels, torch.from_numpy(mask), ""


def _collate(items: list[_Item]) -> tuple[Tensor, Tensor, str]:
    pixels, masks, problems = zip(*items, strict=True)
    return torch.stack(pixels), torch.stack(masks), "; ".join(filter(None, problems))
