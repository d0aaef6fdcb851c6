"""Images that were decoded to be checked, kept as the models take them: nothing is decoded twice.

What does not fit the memory is decoded again when its turn comes, as is all in other processes.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manifests.examine import Decoded
from manifests.images import resize_mask
from pipeline.backbones.preprocess import Squash, squash, squash_of
from pipeline.backbones.spec import BackboneSpec

Size = tuple[int, int]
"""Height and width in pixels."""


class Loaded(NamedTuple):
    """One image, decoded once for all backbones."""

    pixels: dict[Squash, NDArray[Any]]
    """`(H, W, 3)` as squashed: uint8 or, for some backbones, float32."""
    masks: dict[Size, NDArray[np.uint8]]
    """`(H, W)` of 0 and 1."""


class KeptInputs:
    """What the check of a dataset decoded, by image; many threads put in and take out."""

    def __init__(self, specs: Sequence[BackboneSpec], memory_bytes: int) -> None:
        self._wanted = {squash_of(spec): spec for spec in specs}
        self._bytes_left = memory_bytes
        self._kept: dict[tuple[str, str, str | None], Loaded] = {}
        self._lock = Lock()

    def keep(self, decoded: Decoded) -> None:
        """Squash an image for each backbone and keep it, as long as there is room."""
        if not self._reserve(sum(_n_bytes(how) for how in self._wanted)):
            return
        pixels = {how: squash(decoded.image, spec) for how, spec in self._wanted.items()}
        sizes = {(how.height, how.width) for how in self._wanted}
        self._kept[decoded.files] = Loaded(pixels, masks_of(decoded.mask, sizes))

    def take(self, image_path: str, image_id: str, mask_id: str | None) -> Loaded | None:
        """Give an image with that content, and forget it; None where it is not kept."""
        return self._kept.pop((image_path, image_id, mask_id), None)

    def _reserve(self, n_bytes: int) -> bool:
        with self._lock:
            fits = n_bytes <= self._bytes_left
            self._bytes_left -= n_bytes if fits else 0
        return fits


def masks_of(native: NDArray[np.bool_] | None, sizes: "set[Size]") -> dict[Size, NDArray[np.uint8]]:
    """Give a mask of an image's own size `(H, W)`, or none, at each of some sizes."""
    if native is None:
        return {size: np.zeros(size, np.uint8) for size in sizes}
    return {size: resize_mask(native, *size) for size in sizes}


def _n_bytes(how: Squash) -> int:
    per_value = 4 if how.resize_values == "float" else 1
    return how.height * how.width * (3 * per_value + 1)
