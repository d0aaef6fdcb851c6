"""The `zarr.json` objects that make a cache plain Zarr v3."""

import json
from typing import Any

from cache.layout import GROUP, IMAGES_PER_SHARD, Geometry, array_dtype
from cache.shard import ZSTD_LEVEL

DIMENSIONS = {
    "tokens": ("image", "patch", "dim"),
    "cls": ("image", "dim"),
    "masks": ("image", "height", "width"),
}


def zarr_metadata(geometry: Geometry) -> dict[str, bytes]:
    """Return the `zarr.json` objects of a cache by name inside its folder; zarr-python makes them.

    Indentation is ours and zarr-python's order of fields is kept, so that two writers agree.
    """
    from zarr.storage import MemoryStore

    contents: dict[str, Any] = {}
    create_zarr(MemoryStore(contents), geometry)
    return {
        f"{GROUP}/{name}": json.dumps(json.loads(data.to_bytes()), indent=1).encode("ascii")
        for name, data in contents.items()
    }


def create_zarr(store: Any, geometry: Geometry) -> Any:
    """Create the empty group and arrays of a cache in any zarr-python store; return the group."""
    import zarr
    from zarr.codecs import ZstdCodec

    group = zarr.create_group(store, zarr_format=3)
    for array in geometry.arrays:
        item = geometry.item_shape(array)
        group.create_array(
            array,
            shape=(geometry.n_images, *item),
            shards=(IMAGES_PER_SHARD, *item),
            chunks=(1, *item),
            dtype=array_dtype(array),
            filters=None,
            compressors=ZstdCodec(level=ZSTD_LEVEL) if array == "masks" else None,
            fill_value=0,
            dimension_names=DIMENSIONS[array],
            # An all-zero chunk is written too, so that a missing one is always a loss.
            config={"write_empty_chunks": True},
        )
    return group
