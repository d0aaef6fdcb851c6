"""Open a store: a folder, or the URL of an object store."""

from pathlib import Path

from cache.local_objects import LocalObjects
from cache.objects import Objects
from spg_core.errors import NotInStore


def open_store(url_or_path: str | Path, read_only: bool = False) -> Objects:
    """Open a folder or an object-store URL such as `s3://bucket/prefix`; creates nothing.

    Raises:
        StoreError: the URL cannot be understood.
    """
    text = str(url_or_path)
    if "://" in text and not text.startswith("file://"):
        from cache.remote_objects import RemoteObjects  # obstore takes a while to import

        return RemoteObjects(text, read_only)
    return LocalObjects(Path(text.removeprefix("file://")), read_only)


def open_existing_store(url_or_path: str | Path, read_only: bool = False) -> Objects:
    """Open a store that should have something in it, so that a mistyped folder is an error.

    Raises:
        NotInStore: the folder is not there.
        StoreError: the URL cannot be understood.
    """
    objects = open_store(url_or_path, read_only)
    if isinstance(objects, LocalObjects) and not objects.root.is_dir():
        raise NotInStore(f"no store at {objects.where}, there is no such folder")
    return objects
