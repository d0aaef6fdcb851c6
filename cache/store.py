"""Open a store: a folder, or the URL of an object store."""

import re
from pathlib import Path
from urllib.parse import unquote

from cache.local_objects import LocalObjects
from cache.objects import Objects
from spg_core.errors import NotInStore, StoreError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
"""What begins like this is a URL, or was meant as one; one letter is a drive of Windows."""
_SERVED = ("s3", "gs", "az")
_MEANT = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "azure": "az"}


AnyStore = str | Path | Objects
"""A store by its folder or URL, or one that is open."""


def open_store(url_or_path: AnyStore, read_only: bool = False) -> Objects:
    """Open a folder, an object-store URL such as `s3://bucket/prefix`, or `hf://user/repo` to read.

    A folder may be written as `~/store` or `file:///store` (with `%20` for a space), too. One that
    is open already is given back as it is.

    Raises:
        StoreError: it names no store that can be served; says how it is written.
    """
    if not isinstance(url_or_path, str | Path):
        return url_or_path
    text = str(url_or_path)
    scheme = _SCHEME.match(text)
    if not text.strip() or "\0" in text or not _has_bytes(text, is_url=scheme is not None):
        raise StoreError(
            f"{text!r} names no store; give a folder such as ./spg-store, or s3://bucket/prefix"
        )
    if scheme is None:
        return LocalObjects(Path(text), read_only)
    if scheme[1] == "file":
        return LocalObjects(_file_path(text), read_only)
    if scheme[1] == "hf" and _is_plain(text):
        from cache.hub_objects import HubObjects

        return HubObjects(text)
    if scheme[1] not in _SERVED or not _is_plain(text):
        raise StoreError(f"cannot open the store {text}: {_advice(text, scheme[1])}")
    from cache.remote_objects import RemoteObjects  # obstore takes a while to import

    return RemoteObjects(text, read_only)


def open_to_push(url_or_path: str) -> Objects:
    """Open a store likewise, and a hub's repository to write to. Raises: StoreError."""
    if not url_or_path.startswith("hf://") or not _is_plain(url_or_path):
        return open_store(url_or_path)
    from cache.hub_objects import HubObjects

    return HubObjects(url_or_path, read_only=False)


def open_existing_store(url_or_path: AnyStore, read_only: bool = False) -> Objects:
    """Open a store that should have something in it, so that a mistyped folder is an error.

    Raises:
        NotInStore: the folder is not there; with an object store, nothing is below the prefix.
        StoreError: it names no store that can be served.
    """
    objects = open_store(url_or_path, read_only)
    if isinstance(objects, LocalObjects) and not objects.is_folder():
        raise NotInStore(f"no store at {objects.where}, there is no such folder")
    if not isinstance(objects, LocalObjects) and not objects.folders(""):
        login = "; a private one needs `hf auth login`" if objects.where.startswith("hf://") else ""
        raise NotInStore(f"no store at {objects.where}, nothing is there{login}")
    return objects


def _has_bytes(text: str, *, is_url: bool) -> bool:
    """Tell whether a name can be written: a file system's may be bytes that are not UTF-8."""
    try:
        text.encode(errors="strict" if is_url else "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _file_path(text: str) -> Path:
    """Give the folder of `file:///folder`, its escapes resolved."""
    host, slash, path = text.removeprefix("file:").removeprefix("//").partition("/")
    if host not in ("", "localhost") or not slash or "%00" in path:
        raise StoreError(
            f"cannot open the store {text}: a file URL has three slashes and a path from the root, "
            "file:///data/store; or give the folder itself"
        )
    return Path("/" + unquote(path, errors="surrogateescape"))


def _is_plain(url: str) -> bool:
    """Tell whether a URL is a bucket and a prefix, with nothing that could mean something else."""
    _, separator, rest = url.partition("://")
    parts = rest.rstrip("/").split("/")
    return separator != "" and not any(part in ("", ".", "..") for part in parts)


def _advice(text: str, scheme: str) -> str:
    rest = text.removeprefix(f"{scheme}:").strip("/")
    known = _MEANT.get(scheme.lower(), scheme.lower())
    if known in _SERVED:
        plain = "/".join(part for part in rest.split("/") if part not in ("", ".", ".."))
        return f"did you mean {known}://{plain or 'bucket/prefix'} ?"
    match known:
        case "memory":
            return "it would keep nothing; give a folder such as ./spg-store"
        case "http" | "https":
            return "write s3://bucket/prefix, with the server's address in AWS_ENDPOINT_URL"
        case _:
            return (
                "stores are folders, and URLs that begin with "
                f"{', '.join(f'{name}://' for name in _SERVED)}; for a folder write ./{text}"
            )
