"""Where things are in a token cache and how large they are. docs/format.md is the spec."""

from dataclasses import dataclass

import numpy as np

from spg_core.errors import StoreError

FORMAT_VERSION = 1
IMAGES_PER_SHARD = 64
INDEX_BYTES = IMAGES_PER_SHARD * 16 + 4

MOST_PIXELS = 2**28
"""Of a mask, 16384 x 16384: they are compressed, so a small file could ask for any memory."""

ARRAYS = ("masks", "cls", "tokens")
"""Every array a cache can have, in the order in which a shard of each is published."""
MANIFEST = "manifest.parquet"
RECORD = "cache.json"
GROUP = "tokens.zarr"


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Shapes of a cache's arrays. Checked when made."""

    n_images: int
    tokens_per_image: int
    d_model: int
    has_cls: bool = False
    mask_size: tuple[int, int] | None = None
    """Height and width of the masks, None for a cache without masks."""

    def __post_init__(self) -> None:
        height, width = self.mask_size or (1, 1)
        numbers = (self.n_images, self.tokens_per_image, self.d_model, height, width)
        # 2**40 values an image is far past any model; it keeps products inside 63 bits.
        if any(type(number) is not int or not 1 <= number <= 2**31 for number in numbers):
            raise StoreError(f"a cache needs sizes of 1 to 2**31, got {self}")
        if self.tokens_per_image * self.d_model > 2**40 or height * width > MOST_PIXELS:
            raise StoreError(f"no cache has images as large as {self}")

    @property
    def n_shards(self) -> int:
        """Shards of each array; the last one may be short."""
        return -(-self.n_images // IMAGES_PER_SHARD)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays this cache has, in order of publication."""
        present = {"masks": self.mask_size is not None, "cls": self.has_cls, "tokens": True}
        return tuple(name for name in ARRAYS if present[name])

    def item_shape(self, array: str) -> tuple[int, ...]:
        """Return the shape of one image's entry in an array."""
        match array:
            case "tokens":
                return (self.tokens_per_image, self.d_model)
            case "cls":
                return (self.d_model,)
            case "masks":
                return self.mask_size or ()
            case _:
                raise AssertionError(f"no array is called {array!r}")

    def item_bytes(self, array: str) -> int:
        """Return the bytes of one image's entry once decoded."""
        return int(np.prod(self.item_shape(array), dtype=np.int64)) * array_dtype(array).itemsize

    def shard_rows(self, shard: int) -> range:
        """Return the images of a shard. Raises: StoreError for a shard that is not there."""
        if not 0 <= shard < self.n_shards:
            raise StoreError(f"shard {shard} does not exist, there are {self.n_shards}")
        start = shard * IMAGES_PER_SHARD
        return range(start, min(start + IMAGES_PER_SHARD, self.n_images))

    def raw_shard_bytes(self, array: str, shard: int) -> int:
        """Return the exact bytes of an uncompressed shard, an upper estimate for masks."""
        return len(self.shard_rows(shard)) * self.item_bytes(array) + INDEX_BYTES


def array_dtype(array: str) -> np.dtype[np.generic]:
    """Return the stored dtype of an array: float16, or uint8 for masks."""
    return np.dtype("u1" if array == "masks" else "<f2")


def cache_folder(dataset: str, backbone: str, key: str) -> str:
    """Return where a cache lives in its store. Raises: StoreError for names that leave it."""
    for part in (dataset, backbone, key):
        if not is_path_part(part):
            raise StoreError(f"{part!r} cannot be part of a cache's path; use letters, digits, '-'")
    return f"tokens/{dataset}/{backbone}/{key}"


def is_path_part(part: str) -> bool:
    """Tell whether a name can be a dataset's, a backbone's or a key's on every platform."""
    return part != "" and not part.startswith(".") and not set(part) & set('/\\\0:*?"<>|')


def shard_name(array: str, shard: int) -> str:
    """Return the name of a shard's object inside the cache's folder (Zarr's default chunk keys)."""
    zeros = "/0" if array == "cls" else "/0/0"
    return f"{GROUP}/{array}/c/{shard}{zeros}"


def receipt_name(shard: int) -> str:
    """Return the name of a shard's receipt inside the cache's folder."""
    return f"receipts/{shard:05d}.json"
