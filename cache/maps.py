"""Anomaly maps in a store: one Zarr v3 array `(image, height, width)` float32, a chunk an image.

Maps can always be made again from tokens and guides, so unlike a token cache this array is written
by plain zarr-python and replaced when it is asked for again.
"""

from typing import Any, Literal

from cache.local_objects import LocalObjects
from cache.objects import Objects
from cache.remote_objects import RemoteObjects
from spg_core.errors import NotInStore


def create_maps(objects: Objects, name: str, shape: tuple[int, int, int]) -> Any:
    """Create the array `name` in a store and give it, a zarr-python array ready for rows.

    Args:
        objects: the store.
        name: name inside it.
        shape: images, height, width.
    """
    import zarr
    from zarr.codecs import BloscCodec

    return zarr.create_array(
        _zarr_store(objects, name),
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype="float32",
        compressors=BloscCodec(cname="zstd", shuffle="bitshuffle"),
        fill_value=0.0,
        dimension_names=("image", "height", "width"),
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def open_maps(objects: Objects, name: str) -> Any:
    """Open the array `name` of `create_maps` in a store, to write rows or to read them.

    Raises: NotInStore where there is none.
    """
    import zarr

    if objects.size(f"{name}/zarr.json") is None:
        raise NotInStore(f"no maps at {objects.where}/{name}; score with --save-maps makes them")
    mode: Literal["r", "r+"] = "r" if objects.read_only else "r+"
    return zarr.open_array(_zarr_store(objects, name), mode=mode)


def _zarr_store(objects: Objects, name: str) -> Any:
    import zarr.storage

    match objects:
        case LocalObjects():
            return zarr.storage.LocalStore(objects.local_path(name))
        case RemoteObjects():
            return zarr.storage.StorePath(zarr.storage.ObjectStore(objects.store), name)
        case _:
            raise AssertionError(f"no Zarr store for {objects!r}")
