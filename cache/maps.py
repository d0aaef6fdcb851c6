"""Anomaly maps in a store: one Zarr v3 array `(image, height, width)` float32, a chunk an image.

Maps can always be made again from tokens and guides, so unlike a token cache this array is written
by plain zarr-python. Its `zarr.json` is written last: before, no reader takes it for an array, and
afterwards every image has its chunk. A chunk that is lost later reads as NaN, not as a map of 0.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from obstore.exceptions import BaseError

from cache.objects import Objects, refuse_read_only
from cache.zarr_access import zarr_store
from spg_core.errors import NotInStore, StoreError

Shape = tuple[int, int, int]
"""Images, height, width."""
_DESCRIPTION = "zarr.json"


def write_maps(
    objects: Objects, name: str, shape: Shape, rows: NDArray[np.int64], maps: NDArray[np.float32]
) -> None:
    """Write the maps `(n, height, width)` of some rows, in place of earlier ones.

    Any number of writers may write different rows; `finish_maps` makes an array of them.

    Raises: StoreError.
    """
    import zarr

    refuse_read_only(objects, name)
    plan = _planned(shape).async_array
    place = zarr_store(objects, name)
    with _explained(objects, name):
        zarr.Array(zarr.AsyncArray(plan.metadata, place, plan.config))[rows] = maps


def finish_maps(objects: Objects, name: str, shape: Shape) -> None:
    """Publish the array, once every row is written. Raises: StoreError."""
    from zarr.core.buffer import default_buffer_prototype

    plan = _planned(shape)
    text = plan.metadata.to_buffer_dict(default_buffer_prototype())[_DESCRIPTION].to_bytes()
    objects.replace(f"{name}/{_DESCRIPTION}", [text])


def has_maps(objects: Objects, name: str, shape: Shape) -> bool:
    """Tell whether the array is there, whole and of this shape.

    Earlier versions wrote `zarr.json` first, with 0 for what is missing: nobody can tell whether
    those are whole.
    """
    try:
        found = json.loads(objects.get(f"{name}/{_DESCRIPTION}"))
        return bool(found["fill_value"] == "NaN" and found["shape"] == list(shape))
    except (NotInStore, ValueError, TypeError, LookupError, RecursionError):
        return False


def open_maps(objects: Objects, name: str) -> Any:
    """Open the finished array `name` of a store, to read rows.

    Raises: NotInStore where there is none.
    """
    import zarr

    if objects.size(f"{name}/{_DESCRIPTION}") is None:
        raise NotInStore(f"no maps at {objects.where}/{name}; score with --save-maps makes them")
    return zarr.open_array(zarr_store(objects, name, read_only=True), mode="r")


def _planned(shape: Shape) -> Any:
    """Give an array like the one that is written, in memory."""
    import zarr.codecs
    import zarr.storage

    return zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype="float32",
        compressors=zarr.codecs.BloscCodec(cname="zstd", shuffle="bitshuffle"),
        fill_value=float("nan"),
        dimension_names=("image", "height", "width"),
        config={"write_empty_chunks": True},
    )


@contextmanager
def _explained(objects: Objects, name: str) -> Iterator[None]:
    """Turn what the disk or the server says to zarr-python into an error of ours."""
    try:
        yield
    except (OSError, BaseError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = (getattr(error, "strerror", None) or str(error)).split("\n", 1)[0]
        raise StoreError(
            f"{'no room for' if full else 'cannot write'} {objects.where}/{name}: {reason}; "
            "score again once that is mended"
        ) from error
