"""The one manifest schema: one row an image, in the order in which tokens are stored.

A manifest is a Parquet file that pandas, polars and DuckDB open as it is. Every column carries its
meaning as field metadata under the key `comment`, so `pq.read_schema(path)` explains a file that
was found without this program. Paths are POSIX, relative to the dataset root, and cannot leave it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

FORMAT_VERSION: Final = 1
"""Goes up when a column changes its meaning; readers refuse versions that they do not know."""

VERSION_KEY: Final = b"spg_manifest_version"
"""Key of the format version in the metadata of the Parquet file."""

LEFT_OUT_KEY: Final = b"spg_left_out"
"""Key, in the same place, of a JSON list of the images that were left out as broken, if any."""

GOOD: Final = "good"
"""The value of `defect` for a normal image, in every layout."""

SPLITS: Final = ("train", "test")

MAX_PIXELS: Final = 89_478_485
"""Most pixels of one image, width x height: Pillow's own limit (a quarter GiB of RGB), fixed here
so that another library that lifts Pillow's limit does not lift ours."""

MAX_ROWS: Final = 10_000_000
"""Most rows of a manifest that is read back; a file that claims more is not ours."""


def _column(
    name: str, kind: pa.DataType, comment: str, *, nullable: bool = False
) -> "pa.Field[Any]":
    return pa.field(name, kind, nullable=nullable, metadata={"comment": comment})


THUMBNAIL: Final = _column(
    "thumbnail",
    pa.binary(),
    "JPEG of the image squashed to a small square, as the model sees it",
    nullable=True,
)
"""The optional last column."""

SCHEMA: Final = pa.schema(
    [
        # 64 lower-case hex digits; the cache key covers these, in row order.
        _column("image_id", pa.string(), "sha256 of the image file's bytes"),
        # The same in every row; it is also the folder name in the store.
        _column("dataset", pa.string(), "name of the dataset, the same in every row"),
        _column("category", pa.string(), "product or texture; metrics are averaged over these"),
        _column("split", pa.string(), "train or test"),
        _column("defect", pa.string(), "kind of defect; good for a normal image"),
        _column("label", pa.int8(), "0 normal, 1 defective; 0 exactly where defect is good"),
        _column("image_path", pa.string(), "relative to the dataset root, POSIX"),
        # Null and "a mask with nothing in it" are different things, hence not an empty string.
        _column("mask_path", pa.string(), "relative to the dataset root, POSIX", nullable=True),
        _column("mask_id", pa.string(), "sha256 of the mask file's bytes", nullable=True),
        _column("width", pa.int32(), "pixels, of the image as it is opened"),
        _column("height", pa.int32(), "pixels, of the image as it is opened"),
        # Without a mask this is 0, which for a defective image means "not known".
        _column("mask_pixels", pa.int64(), "anomalous pixels at native size; 0 without a mask"),
        _column("row", pa.int64(), "position of the row, also the image's index in tokens"),
    ],
    metadata={VERSION_KEY: str(FORMAT_VERSION).encode()},
)
"""Every manifest has exactly these columns in this order, then perhaps `THUMBNAIL`."""


def schema_for(*, thumbnails: bool, left_out: Sequence[str] = ()) -> pa.Schema:
    """Give the schema of a manifest, with or without thumbnails and names of what is left out."""
    schema = SCHEMA.append(THUMBNAIL) if thumbnails else SCHEMA
    if left_out:
        named = json.dumps(list(left_out)).encode()
        schema = schema.with_metadata({**(SCHEMA.metadata or {}), LEFT_OUT_KEY: named})
    return schema


def left_out_of(metadata: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """Give the files that a manifest's metadata says were left out; `("",)` if it is no list."""
    try:
        names = json.loads(metadata.get(LEFT_OUT_KEY, b"[]"))
    except (ValueError, RecursionError):
        return ("",)
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if texts else ("",)
