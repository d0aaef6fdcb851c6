"""A store in an object store: S3 and its relatives through obstore, never through code of ours.

Objects go up as single PUTs with `If-None-Match: *`; multipart uploads are not used because some
servers (Ceph among them) ignore the condition there. A server that ignores it altogether is found
out by a probe before anything is written. Each PUT carries an id of its own, so that a writer whose
answer got lost recognises what it wrote. `cache.remote_store` opens the connection.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from cache.objects import (
    SMALL_OBJECT_BYTES,
    TEMPORARY_PREFIX,
    ObjectInfo,
    Part,
    as_view,
    check_name,
    is_name,
    is_temporary,
    refuse_larger,
    refuse_read_only,
    whole_range,
)
from cache.remote_store import connect
from spg_core.errors import NotInStore, StoreError

_ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 0.2
ANSWER_SECONDS = 30.0
"""A server that is silent for so long is given up."""
WHOLE_SECONDS = 300.0
"""Limit of a request as a whole."""
_LARGE_BYTES = 1 << 23
WRITE_ID = "spgwrite"
"""Name of the metadata that tells whose PUT made an object; letters only, for all servers."""
_MISSING = (NotFoundError, FileNotFoundError)
_FAILED = (BaseError, OSError)
_FINAL = (*_MISSING, PermissionDeniedError, UnauthenticatedError)

Result = TypeVar("Result")


class RemoteObjects:
    """The operations of `cache.objects.Objects` on an object-store URL."""

    def __init__(self, url: str, read_only: bool = False) -> None:
        self.where = url.rstrip("/")
        self.read_only = read_only
        self._proved = False
        self.store, self._for_large = connect(self.where, ANSWER_SECONDS, WHOLE_SECONDS)

    def __reduce__(self) -> tuple[type["RemoteObjects"], tuple[str, bool]]:
        return RemoteObjects, (self.where, self.read_only)

    def get(self, name: str, max_bytes: int = SMALL_OBJECT_BYTES) -> bytes:
        """Return the whole object. Raises: NotInStore, StoreError; CorruptStore if too large."""

        def fetch() -> bytes:
            result = obstore.get(self.store, check_name(name))
            refuse_larger(result.meta["size"], max_bytes, f"{self.where}/{name}")
            return bytes(result.bytes())

        return self._try("read", name, fetch)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`. Raises: NotInStore, StoreError."""
        path = check_name(name)
        data = self._try(
            "read",
            name,
            lambda: bytes(obstore.get_range(self.store, path, start=start, length=length)),
        )
        return whole_range(data, start, length, f"{self.where}/{name}")

    def put_new(
        self, name: str, parts: Sequence[Part], approve: Callable[[], object] | None = None
    ) -> bool:
        """Publish the joined parts, once approved; False, nothing changed, when the name is taken.

        After a lost answer the retry finds its own object, and knows it by its id.
        """
        refuse_read_only(self, name)
        body = b"".join(as_view(part) for part in parts)
        path, mine = check_name(name), {WRITE_ID: secrets.token_hex(16)}
        if approve is not None:
            approve()

        def put() -> bool:
            store = self._store_for(body)
            try:
                obstore.put(store, path, body, mode="create", use_multipart=False, attributes=mine)
            except AlreadyExistsError:
                return self._has(path, mine)
            return True

        return self._try("write", name, put)

    def replace(self, name: str, parts: Sequence[Part]) -> None:
        """Publish the joined parts in place of what is there; see `Objects`."""
        refuse_read_only(self, name)
        body = b"".join(as_view(part) for part in parts)
        path = check_name(name)
        store = self._store_for(body)
        self._try("write", name, lambda: obstore.put(store, path, body, use_multipart=False))

    def size(self, name: str) -> int | None:
        """Return the object's bytes, None when there is none."""
        try:
            meta = self._try("read", name, lambda: obstore.head(self.store, check_name(name)))
        except NotInStore:
            return None
        return meta["size"]

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below folder `prefix` (all with ""), sorted by name."""
        return (info for info in self._files(prefix) if not is_temporary(info.name))

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in folder `prefix`, sorted."""
        listing = self._try(
            "list", prefix, lambda: obstore.list_with_delimiter(self.store, prefix or None)
        )
        return sorted(path.rpartition("/")[2] for path in listing["common_prefixes"])

    def temporaries(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield probes of dead writers; a PUT that was cut off leaves nothing."""
        return (info for info in self._files(prefix) if is_temporary(info.name))

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        refuse_read_only(self, name)
        try:
            self._try("delete", name, lambda: obstore.delete(self.store, check_name(name)))
        except NotInStore:
            return

    def local_path(self, name: str) -> Path | None:
        """Return None: there are no files here."""
        return None

    def check_writable(self) -> None:
        """Prove that create-only writes work here. Raises: StoreError saying why not."""
        if self._proved:
            return
        name = f"{TEMPORARY_PREFIX}probe-{secrets.token_hex(8)}"
        refuse_read_only(self, name)
        try:
            self.put_new(name, [b"probe"])
            if self.put_new(name, [b"other"]):
                raise StoreError(
                    f"{self.where} ignores If-None-Match, so two writers could lose each other's "
                    "data; use a server with conditional writes"
                )
        finally:
            with contextlib.suppress(StoreError):  # swept after a day; what failed before counts
                self.delete(name)
        self._proved = True

    def free_bytes(self) -> int | None:
        """Return None: object stores do not say."""
        return None

    def _store_for(self, body: bytes) -> "obstore.store.ObjectStore":
        return self.store if len(body) < _LARGE_BYTES else self._for_large

    def _has(self, path: str, mine: dict[str, str]) -> bool:
        """Tell whether the object that is there was made by our own PUT."""
        try:
            there = obstore.get(self.store, path, options={"head": True}).attributes
        except _MISSING:
            return False
        return there.get(WRITE_ID) == mine[WRITE_ID]

    def _files(self, prefix: str) -> Iterator[ObjectInfo]:
        def fetch() -> list[ObjectInfo]:
            pages = obstore.list(self.store, prefix=prefix or None, chunk_size=1000)
            return [
                ObjectInfo(
                    meta["path"],
                    meta["size"],
                    meta["last_modified"].timestamp(),
                    meta["e_tag"],
                )
                for page in pages
                for meta in page
                if is_name(meta["path"])
            ]

        return iter(sorted(self._try("list", prefix, fetch), key=lambda info: info.name))

    def _try(self, verb: str, name: str, request: Callable[[], Result]) -> Result:
        """Make a request; repeat it after a failure that may pass, such as a cut connection."""
        wait, start = _FIRST_WAIT_SECONDS, time.monotonic()
        for attempt in range(_ATTEMPTS):
            try:
                return request()
            except _FAILED as error:
                seconds = time.monotonic() - start
                if not _is_final(error) and seconds > ANSWER_SECONDS:
                    raise StoreError(
                        f"cannot {verb} {self.where}/{name}: no answer for {seconds:.0f} s "
                        f"({_first_line(error)}); check the network and AWS_ENDPOINT_URL, then "
                        "run it again"
                    ) from error
                if attempt == _ATTEMPTS - 1 or _is_final(error):
                    raise self._explain(error, verb, name) from error
                time.sleep(wait)
                wait *= 2
        raise AssertionError("the last attempt returns or raises")

    def _explain(self, error: Exception, verb: str, name: str) -> StoreError:
        shown = f"{self.where}/{name}" if name else self.where
        text = str(error)
        if "NoSuchBucket" in text:
            return StoreError(f"cannot {verb} {shown}: there is no such bucket; create it first")
        if isinstance(error, _MISSING):
            return NotInStore(f"{shown} is not in the store")
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return StoreError(
                f"no permission to {verb} {shown}; check the credentials (AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and the bucket's policy"
            )
        return StoreError(f"cannot {verb} {shown}: {_first_line(error)}")


def _is_final(error: Exception) -> bool:
    """Tell whether trying again cannot help."""
    words = ("NoSuchBucket", "InvalidAccessKeyId", "NotImplemented")
    return isinstance(error, _FINAL) or any(word in str(error) for word in words)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
