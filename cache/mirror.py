"""Keep the shards of a remote cache in a local folder, so that it is fetched once.

A shard is fetched when it is first read, checked against the BLAKE3 in `cache.json`, and renamed
into place, so processes may share a mirror. The folder has a size cap: a cache that would not fit
is refused before the first fetch, and nothing is ever evicted.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock

from cache.layout import shard_name
from cache.local_objects import LocalObjects
from cache.objects import GRACE_SECONDS, Objects
from cache.record import CacheRecord, StoredObject
from cache.verify import check_bytes
from spg_core.errors import CorruptStore, NotInStore, StoreError

DEFAULT_MIRROR_BYTES = 100 * 10**9

_AHEAD = 6
"""Shards fetched or waiting to be, at a time."""
_FETCHES = 4
"""Shards fetched at a time; each is in memory while it is checked."""


def default_mirror_folder() -> Path:
    """Return `$XDG_CACHE_HOME/spg-pipe/mirror`, by default in `~/.cache`. Raises: StoreError."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "spg-pipe" / "mirror"
    except RuntimeError as error:
        raise StoreError(
            f"nowhere to mirror a remote cache ({error}); set HOME or XDG_CACHE_HOME to a folder"
        ) from error


class Mirror:
    """The local copy of one remote cache's shards."""

    def __init__(
        self,
        objects: Objects,
        folder: str,
        record: CacheRecord,
        root: Path | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._objects = objects
        self._folder = folder
        self._record = record
        self.root = root or default_mirror_folder()
        self._max_bytes = DEFAULT_MIRROR_BYTES if max_bytes is None else max_bytes
        self._stored: dict[str, tuple[str, int, StoredObject]] = {
            shard_name(array, receipt.shard): (array, receipt.shard, stored)
            for receipt in record.receipts
            for array, stored in receipt.objects.items()
        }
        # Two stores may hold one key with different bytes (GPUs do not repeat theirs exactly).
        digests = "".join(stored.blake3 for _, _, stored in self._stored.values())
        content = hashlib.sha256(digests.encode("ascii")).hexdigest()[:16]
        self.folder = self.root / f"{record.key}-{content}"
        self._kept = LocalObjects(self.root)
        self._pool = ThreadPoolExecutor(_FETCHES, thread_name_prefix="mirror")
        self._running: dict[str, Future[Path]] = {}
        self._lock = Lock()
        self._planned: deque[str] = deque()
        self._has_room = False

    def __reduce__(self) -> tuple[type["Mirror"], tuple[object, ...]]:
        return Mirror, (self._objects, self._folder, self._record, self.root, self._max_bytes)

    def fetch(self, name: str) -> Path:
        """Return the local file of a shard, fetched if it is not there yet.

        Raises:
            CorruptStore: the store's bytes are missing or not what was written.
            StoreError: the mirror would outgrow its cap or the disk.
        """
        future = self._start(name)
        while True:
            with self._lock:
                busy = sum(not running.done() for running in self._running.values())
                following = self._planned.popleft() if self._planned and busy < _AHEAD else None
            if following is None:
                return future.result()
            self._start(following)

    def read_ahead(self, names: Sequence[str]) -> None:
        """Say which shards will be read, in order: each `fetch` starts the next few of them.

        Errors come from `fetch`. Only a few are under way at a time, so that a reader who stops
        early does not wait for the rest.
        """
        with self._lock:
            self._planned = deque(names)

    def local_file(self, name: str) -> Path:
        """Return where a shard is kept."""
        return self.folder / name.replace("/", "_")

    def _start(self, name: str) -> "Future[Path]":
        with self._lock:
            future = self._running.get(name)
            # Also when it failed before, or when someone deleted the file since.
            if future is None or (future.done() and not self.local_file(name).exists()):
                future = self._pool.submit(self._fetch, name)
                self._running[name] = future
            return future

    def _fetch(self, name: str) -> Path:
        path = self.local_file(name)
        kept_name = f"{self.folder.name}/{path.name}"
        array, shard, stored = self._stored[name]
        if self._kept.size(kept_name) == stored.size_bytes:
            return path
        self._refuse_if_too_large()
        where = f"{self._objects.where}/{self._folder}/{name}"
        try:
            data = self._objects.get(f"{self._folder}/{name}", max_bytes=stored.size_bytes)
        except NotInStore as error:
            rows = self._record.geometry.shard_rows(shard)
            raise CorruptStore(
                f"{where} (images {rows.start} to {rows.stop - 1}) is missing from a complete cache"
            ) from error
        check_bytes(data, array, shard, self._record, where)
        self._kept.replace(kept_name, [data])
        return path

    def _refuse_if_too_large(self) -> None:
        """Compare the whole mirror with its cap, once, before anything is fetched."""
        with self._lock:
            if self._has_room:
                return
            for old in list(self._kept.temporaries("")):
                if time.time() - old.modified > GRACE_SECONDS:
                    with suppress(StoreError):  # somebody else's: theirs to sweep
                        self._kept.delete(old.name)
            there = {info.name: info.size_bytes for info in self._kept.walk("")}
            missing = sum(
                stored.size_bytes
                for name, (_, _, stored) in self._stored.items()
                if f"{self.folder.name}/{self.local_file(name).name}" not in there
            )
            used = sum(there.values())
            if used + missing > self._max_bytes:
                raise StoreError(
                    f"mirroring {self._folder} needs {missing} bytes beside the {used} in "
                    f"{self.root}, the cap is {self._max_bytes}; raise the cap, choose another "
                    "folder or delete mirrors you no longer need"
                )
            self._has_room = True
