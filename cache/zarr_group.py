"""The `zarr.json` objects that make a cache plain Zarr v3.

Spelt out here and not asked of zarr-python, so that people with different versions of it agree to
the byte and can resume each other's caches; a test compares with what zarr-python would write.
"""

import json

from cache.layout import GROUP, IMAGES_PER_SHARD, Geometry, array_dtype
from cache.shard import ZSTD_LEVEL

DIMENSIONS = {
    "tokens": ("image", "patch", "dim"),
    "cls": ("image", "dim"),
    "masks": ("image", "height", "width"),
}

_LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
_ZSTD = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}


def zarr_metadata(geometry: Geometry) -> dict[str, bytes]:
    """Return the `zarr.json` objects of a cache, by name inside its folder."""
    group = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
    documents = {f"{GROUP}/zarr.json": group}
    for array in geometry.arrays:
        documents[f"{GROUP}/{array}/zarr.json"] = _array_metadata(geometry, array)
    return {name: json.dumps(body, indent=1).encode("ascii") for name, body in documents.items()}


def _array_metadata(geometry: Geometry, array: str) -> dict[str, object]:
    item = geometry.item_shape(array)
    # One byte has no endianness, and zarr-python says so by leaving it out.
    codecs = [{"name": "bytes"}, _ZSTD] if array == "masks" else [_LITTLE_ENDIAN]
    sharding = {
        "chunk_shape": [1, *item],
        "codecs": codecs,
        "index_codecs": [_LITTLE_ENDIAN, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "shape": [geometry.n_images, *item],
        "data_type": array_dtype(array).name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [IMAGES_PER_SHARD, *item]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if array == "masks" else 0.0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": list(DIMENSIONS[array]),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
