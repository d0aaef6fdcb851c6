"""A store as named objects: the few operations everything else is built from.

`cache.store.open_store` gives the same operations on a folder (`cache.local_objects`) and on an
object store such as S3 (`cache.remote_objects`). Names are relative, with `/` between their parts,
on every platform. An object is published whole or not at all, and `put_new` never replaces one, so
two writers of the same name cannot lose data.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spg_core.errors import CorruptStore, StoreError

Part = bytes | NDArray[np.generic]
"""A piece of an object: bytes or a C-contiguous array, written as it lies in memory."""

SMALL_OBJECT_BYTES = 1 << 30
"""No JSON or Parquet of ours is larger; `get` refuses more before it takes memory."""

TEMPORARY_PREFIX = ".tmp-"
"""First letters of the last part of every name that is not yet, or never will be, published."""

_OF_ZARR = re.compile(r"\.[0-9a-f]{32}\.partial$")
"""What zarr-python leaves of a chunk of maps, where writing it failed."""

GRACE_SECONDS = 24 * 3600.0
"""A temporary younger than this may belong to a living writer and is left alone."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing."""

    name: str
    """Relative to the store."""
    size_bytes: int
    modified: float
    """Seconds since the epoch, by the store's clock."""
    version: str | None = None
    """Other bytes under this name have another; None where the store does not say."""


class Objects(Protocol):
    """What a store can do; safe to share between threads."""

    where: str
    """Path or URL, for messages."""
    read_only: bool

    def get(self, name: str, max_bytes: int = SMALL_OBJECT_BYTES) -> bytes:
        """Return the whole object. Raises: NotInStore, StoreError; CorruptStore if too large."""
        ...

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`. Raises: NotInStore, StoreError."""
        ...

    def put_new(
        self, name: str, parts: Sequence[Part], approve: Callable[[], object] | None = None
    ) -> bool:
        """Publish the joined parts; False, and nothing changed, when the name is taken.

        `approve` is called before the object can be seen, so that its bytes can be checked while
        they are written; when it raises, nothing is published.
        """
        ...

    def replace(self, name: str, parts: Sequence[Part]) -> None:
        """Publish the joined parts in place of what is there.

        For a part of a cache only to put back the bytes that its record states.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return the object's bytes, None when there is none."""
        ...

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below folder `prefix` (all with ""), sorted by name."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in folder `prefix`, sorted."""
        ...

    def temporaries(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what dead or living writers have not published, below folder `prefix`."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def local_path(self, name: str) -> Path | None:
        """Return the file that is the object, None for a store without files."""
        ...

    def check_writable(self) -> None:
        """Prove that create-only writes work here. Raises: StoreError saying why not."""
        ...

    def free_bytes(self) -> int | None:
        """Return the free space, None where the store does not know it."""
        ...


def check_name(name: str) -> str:
    """Return `name` if it stays inside the store. Raises: StoreError."""
    if not is_name(name):
        raise StoreError(f"{name!r} is not an object name: expected parts joined by single '/'")
    return name


def is_name(name: str) -> bool:
    """Tell whether `name` can be an object's: parts joined by single '/', inside the store."""
    parts = name.split("/")
    # A lone surrogate stands for bytes of a file's name that are not UTF-8; nothing of ours is.
    foreign = "\\" in name or "\0" in name or any("\ud800" <= char <= "\udfff" for char in name)
    return not foreign and not any(part in ("", ".", "..") for part in parts)


def refuse_larger(size_bytes: int, max_bytes: int, shown: str) -> None:
    """Refuse an object that is larger than one can be. Raises: CorruptStore."""
    if size_bytes > max_bytes:
        raise CorruptStore(f"{shown} has {size_bytes} bytes, at most {max_bytes} expected")


def whole_range(data: bytes, start: int, length: int, shown: str) -> bytes:
    """Give what was read from `start` on if it has its length. Raises: StoreError."""
    if len(data) != length:
        raise StoreError(f"{shown} ends before byte {start + length}")
    return data


def refuse_read_only(objects: Objects, name: str) -> None:
    """Refuse to write where a store is only read. Raises: StoreError."""
    if objects.read_only:
        raise StoreError(f"{objects.where} was opened read-only; {name} is not changed")


def total_bytes(parts: Sequence[Part]) -> int:
    """Return how many bytes the joined parts have."""
    return sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)


def as_view(part: Part) -> memoryview:
    """Return the bytes of a part without a copy."""
    return memoryview(part) if isinstance(part, bytes) else part.reshape(-1).view(np.uint8).data


def is_temporary(name: str) -> bool:
    """Tell whether a name belongs to something that was never published."""
    last = name.rpartition("/")[2]
    return last.startswith(TEMPORARY_PREFIX) or _OF_ZARR.search(last) is not None
