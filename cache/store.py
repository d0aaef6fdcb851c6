"""Open a store: a folder, or the URL of an object store."""

from pathlib import Path

from cache.local_objects import LocalObjects
from cache.objects import Objects


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
