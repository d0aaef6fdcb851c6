"""The bytes of a shard: built by hand when written, distrusted when read.

A shard holds 64 images (rows) of one array: one inner chunk an image, one after the other, then
the shard index of Zarr v3's `sharding_indexed` codec. Inner chunks of `tokens` and `cls` are raw
little-endian float16, so a shard of tokens is a C array that can be mapped into memory; those of
`masks` are zstd frames. The bytes are those zarr-python writes (a test compares them), but whole
shards by hand are four to five times as fast.
"""

import math
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from blake3 import blake3
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from cache.layout import IMAGES_PER_SHARD, INDEX_BYTES, array_dtype
from cache.local_files import open_regular
from spg_core.errors import StoreError

ABSENT = np.iinfo(np.uint64).max
"""Offset and length, in the shard index, of an image that lies past the end of the array."""
ZSTD_LEVEL = 3

_ZSTD = Zstd(level=ZSTD_LEVEL)


def crc32c(chunk: bytes | NDArray[np.generic]) -> int:
    """Return the CRC-32C of bytes or of a C-contiguous array."""
    return int(google_crc32c.value(chunk))


def new_digest(data: bytes = b"") -> blake3:
    """Return the BLAKE3 of `data`, with `update` and `hexdigest` as hashlib's objects have them.

    Cryptographic as SHA-256 is, at four times its speed on one core with AVX-512
    (`benchmarks/writing.py`), so that a shard is digested in less time than it is written.
    Source: github.com/BLAKE3-team/BLAKE3.
    """
    return blake3(data)


def encode_chunks(array: str, items: NDArray[np.generic]) -> list[bytes | NDArray[np.generic]]:
    """Return the inner chunks of `(n, ...)` entries, as stored; tokens are not copied."""
    stored = np.ascontiguousarray(items, array_dtype(array))
    if array == "masks":
        return [_ZSTD.encode(item) for item in stored]
    return list(stored)


def encode_index(chunk_bytes: Sequence[int]) -> bytes:
    """Return the shard index: 64 (offset, length) pairs of uint64, little-endian, then a CRC-32C.

    Worked example: one chunk of 12 bytes gives (0, 12) and 63 times (2**64 - 1, 2**64 - 1).
    """
    index = np.full((IMAGES_PER_SHARD, 2), ABSENT, "<u8")
    lengths = np.asarray(chunk_bytes, np.uint64)
    index[: len(lengths), 1] = lengths
    index[: len(lengths), 0] = np.cumsum(lengths) - lengths
    return index.tobytes() + crc32c(index).to_bytes(4, "little")


def decode_index(data: bytes, n_rows: int, shard_bytes: int) -> NDArray[np.uint64]:
    """Return `(n_rows, 2)` offsets and lengths of a shard's inner chunks, all inside the shard.

    Args:
        data: the last `INDEX_BYTES` bytes of the shard.
        n_rows: how many images the shard must hold.
        shard_bytes: size of the whole shard.

    Raises:
        StoreError: checksum, holes, overlaps or offsets are wrong; the caller names the file.
    """
    if len(data) != INDEX_BYTES or crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise StoreError("its shard index does not match its checksum")
    index = np.frombuffer(data[:-4], "<u8").reshape(IMAGES_PER_SHARD, 2)
    if not (index[n_rows:] == ABSENT).all():
        raise StoreError(f"its shard index lists more than {n_rows} images")
    lengths = index[:n_rows, 1]
    room = shard_bytes - INDEX_BYTES
    # Lengths are bounded before they are summed, or 2**63 + 2**63 would wrap round to 0.
    if (lengths > room).any() or int(lengths.sum()) != room:
        raise StoreError(f"its shard index does not cover its {room} bytes of data")
    if not (index[:n_rows, 0] == np.cumsum(lengths) - lengths).all():
        raise StoreError("its shard index has images out of order")
    return index[:n_rows]


def decode_mask(frame: bytes | NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the `(height, width)` uint8 mask of one inner chunk.

    Raises:
        StoreError: the frame would not give height x width bytes; nothing is decompressed then.
    """
    found = zstd_content_bytes(bytes(frame[:18]))
    if found != size[0] * size[1]:
        raise StoreError(f"a mask of {found} bytes where {size[0]} x {size[1]} are expected")
    if found > (len(frame) // 4 + 1) << 17:  # a block of 4 bytes gives 128 KiB at most
        raise StoreError(f"a mask of {found} bytes, which {len(frame)} bytes of zstd cannot hold")
    mask = np.empty(size, np.uint8)
    try:
        _ZSTD.decode(frame, mask)
    except (RuntimeError, ValueError) as error:
        raise StoreError(f"a mask that does not decompress ({error})") from error
    return mask


def zstd_content_bytes(header: bytes) -> int | None:
    """Return the decompressed size a zstd frame states in its first 18 bytes, None if it does not.

    Source: RFC 8878, section 3.1.1.1.
    """
    if len(header) < 6 or header[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = header[4]
    size_flag, single_segment = descriptor >> 6, bool(descriptor & 0x20)
    width = (1 if single_segment else 0, 2, 4, 8)[size_flag]
    start = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if width == 0 or len(header) < start + width:
        return None
    value = int.from_bytes(header[start : start + width], "little")
    return value + 256 if width == 2 else value


def describe_shard(shard: bytes, n_rows: int) -> list[int]:
    """Return the CRC-32C of each inner chunk of a stored shard, once its structure is sound.

    Raises:
        StoreError: size or index are wrong; the caller names the file.
    """
    if len(shard) < INDEX_BYTES:
        raise StoreError(f"it has {len(shard)} bytes, fewer than a shard index")
    index = decode_index(shard[-INDEX_BYTES:], n_rows, len(shard))
    data = np.frombuffer(shard, np.uint8)
    return [crc32c(data[start : start + length]) for start, length in index.tolist()]


def is_storable(values: NDArray[np.generic]) -> bool:
    """Tell whether contiguous float16 values are free of NaN, infinity and +-65504.

    65504 is the largest float16: a value there was cut off when it was converted.
    """
    # On the bit patterns: a third of the time np.isfinite takes.
    magnitude = np.bitwise_and(values.view(np.uint16), 0x7FFF)
    return bool(magnitude.max() < 0x7BFF)


def check_values(
    array: str, shard: bytes, n_rows: int, item_shape: tuple[int, ...]
) -> Iterator[tuple[int, str]]:
    """Yield (row in the shard, problem) of images with values that the format does not allow.

    The index is sound: `describe_shard` was passed.
    """
    data = np.frombuffer(shard, np.uint8)
    index = decode_index(shard[-INDEX_BYTES:], n_rows, len(shard))
    item_bytes = math.prod(item_shape) * array_dtype(array).itemsize
    for row, (start, length) in enumerate(index.tolist()):
        chunk = data[start : start + length]
        if array == "masks":
            try:
                worst = int(decode_mask(chunk, (item_shape[0], item_shape[1])).max())
            except StoreError as error:
                yield row, str(error)
                continue
            if worst > 1:
                yield row, f"a mask with {worst}, expected 0 and 1"
        elif length != item_bytes:
            yield row, f"an image of {length} bytes where {item_bytes} are expected"
        elif not is_storable(chunk):
            yield row, f"{array} with NaN, infinity or 65504, which float16 cut off"


class MappedShard:
    """A shard's file mapped into memory, its size and its index checked first.

    `values` are its decoded entries, `(n_rows, *item_shape)`, empty for compressed masks.

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
