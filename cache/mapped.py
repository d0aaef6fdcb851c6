"""One shard's file in memory: mapped, its size and its index checked first."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.layout import INDEX_BYTES, array_dtype
from cache.local_files import open_regular
from cache.shard import decode_index
from spg_core.errors import StoreError


class MappedShard:
    """A mapped shard; `values` are its decoded entries, empty for compressed masks.

    Raises:
        StoreError: size or index are wrong; the caller names the file.
        OSError: the file cannot be opened.
    """

    def __init__(
        self, path: Path, expected_bytes: int, n_rows: int, array: str, item_shape: tuple[int, ...]
    ) -> None:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            if size != expected_bytes:
                raise StoreError(f"it has {size} bytes, {expected_bytes} were written")
            self._data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self._index = decode_index(self._data[-INDEX_BYTES:], n_rows, size)
        self._bytes = np.frombuffer(self._data, np.uint8)
        self.values: NDArray[Any] = np.empty(0)
        if array != "masks":
            dtype = array_dtype(array)
            item_bytes = int(np.prod(item_shape)) * dtype.itemsize
            if not (self._index[:, 1] == item_bytes).all():
                raise StoreError(f"its shard index has images of other than {item_bytes} bytes")
            raw = self._bytes[: n_rows * item_bytes]
            self.values = raw.view(dtype).reshape(n_rows, *item_shape)

    def chunk(self, row: int) -> NDArray[np.uint8]:
        """Return the stored bytes of one image, without a copy."""
        start, length = self._index[row].tolist()
        return self._bytes[start : start + length]
