"""A store in a repository of the Hugging Face hub, `hf://user/repo[/prefix]`.

It is read at one commit, the newest when it was opened. What is written is uploaded, and seen once
`commit` makes one commit of it, on top of the commit that was looked at: where another came in
between, the hub refuses ours, we look again, and a name that was taken meanwhile is not replaced.
The hub knows large files by their SHA-256, so what was uploaded before a cut is not sent again.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cache.hub_files import Committed, Pending, explained, git_sha1, without_remarks
from cache.objects import (
    SMALL_OBJECT_BYTES,
    ObjectInfo,
    Part,
    as_view,
    check_name,
    refuse_larger,
    whole_range,
)
from spg_core.errors import NotInStore, StoreError

SCHEME = "hf://"
_ATTEMPTS = 5
_LARGE_BYTES = 10 << 20
"""What is larger is uploaded at once, and not held until the commit."""
_COMMIT_CAME_BETWEEN = 412


class HubObjects:
    """The operations of `cache.objects.Objects` on a repository of the hub.

    Raises: StoreError for a URL that names none.
    """

    def __init__(self, url: str, read_only: bool = True) -> None:
        owner, _, rest = url.removeprefix(SCHEME).rstrip("/").partition("/")
        name, _, prefix = rest.partition("/")
        if not owner or not name:
            raise StoreError(f"{url} names no repository; write hf://user/repo or hf://user/repo/x")
        self.where, self.read_only = url.rstrip("/"), read_only
        self.repository = f"{owner}/{name}"
        self._prefix = f"{prefix}/" if prefix else ""
        self._lock = threading.RLock()
        self._head: str | None = None
        self._files: dict[str, Committed] = {}
        self._pending: dict[str, Pending] = {}

    def get(self, name: str, max_bytes: int = SMALL_OBJECT_BYTES) -> bytes:
        """Return the whole object. Raises: NotInStore, StoreError; CorruptStore if too large."""
        size_bytes = self.size(name)
        if size_bytes is None:
            raise NotInStore(f"{self.where}/{name} is not in the store")
        refuse_larger(size_bytes, max_bytes, f"{self.where}/{name}")
        pending = self._pending.get(name)
        if pending is not None and pending.body is not None:
            return pending.body
        return self._download(name).read_bytes()

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`. Raises: NotInStore, StoreError."""
        data = self.get(name, max_bytes=max(1, self.size(name) or 0))[start : start + length]
        return whole_range(data, start, length, f"{self.where}/{name}")

    def put_new(
        self, name: str, parts: Sequence[Part], approve: Callable[[], object] | None = None
    ) -> bool:
        """Take the joined parts for the next commit; False when the name is taken."""
        if self.size(check_name(name)) is not None:
            return False
        if approve is not None:
            approve()
        self._take(name, b"".join(as_view(part) for part in parts), is_new=True)
        return True

    def replace(self, name: str, parts: Sequence[Part]) -> None:
        """Take the joined parts for the next commit, in place of what is there."""
        self._take(check_name(name), b"".join(as_view(part) for part in parts), is_new=False)

    def size(self, name: str) -> int | None:
        """Return the object's bytes, None when there is none."""
        with self._lock:
            if name in self._pending:
                return self._pending[name].size_bytes
            found = self._listing().get(name)
        return None if found is None else found.size_bytes

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below folder `prefix` (all with ""), sorted by name."""
        start = f"{prefix}/" if prefix else ""
        with self._lock:
            sizes = {name: one.size_bytes for name, one in self._listing().items()}
            sizes |= {name: one.size_bytes for name, one in self._pending.items()}
        for name in sorted(sizes):
            if name.startswith(start):
                yield ObjectInfo(name, sizes[name], 0.0)

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in folder `prefix`, sorted."""
        start = f"{prefix}/" if prefix else ""
        below = (one.name.removeprefix(start).split("/") for one in self.walk(prefix))
        return sorted({parts[0] for parts in below if len(parts) > 1})

    def temporaries(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield nothing: what is not committed is not seen."""
        return iter(())

    def delete(self, name: str) -> None:
        """Drop an object that is not committed yet. Raises: StoreError for another."""
        with self._lock:
            if self._pending.pop(name, None) is None and name in self._listing():
                raise StoreError(f"{self.where}/{name} is removed on the hub's page, not from here")

    def local_path(self, name: str) -> Path | None:
        """Return None: the hub has no files of this machine."""
        return None

    def free_bytes(self) -> int | None:
        """Return None: the hub does not say."""
        return None

    def check_writable(self) -> None:
        """Make the repository, private, if it is not there. Raises: StoreError saying why not."""
        self._refuse_if_read_only()
        from huggingface_hub import HfApi

        with explained("write to", self.where):
            HfApi().create_repo(self.repository, private=True, exist_ok=True)

    def commit(self, message: str) -> None:
        """Let everything be seen that was written since the last commit, all at once.

        Raises: StoreError, and nothing is changed.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        for _ in range(_ATTEMPTS):
            with self._lock, explained("write to", self.where), without_remarks():
                if not self._pending:
                    return
                self._listing()
                try:
                    HfApi().create_commit(
                        self.repository,
                        [one.operation for one in self._pending.values()],
                        commit_message=message,
                        parent_commit=self._head,
                    )
                except HfHubHTTPError as error:
                    if error.response.status_code != _COMMIT_CAME_BETWEEN:
                        raise
                    self._look_again()
                    continue
                self._pending, self._head = {}, None
                return
        raise StoreError(f"{self.where} is written by others all the time; run again later")

    def _look_again(self) -> None:
        """Read the newest commit; forget what it has, refuse what it has otherwise."""
        self._head = None
        files = self._listing()
        for name, ours in list(self._pending.items()):
            theirs = files.get(name)
            if theirs is not None and theirs.digest in (ours.sha256, git_sha1(ours.body)):
                del self._pending[name]
            elif theirs is not None and ours.is_new:
                raise StoreError(f"{self.where}/{name} was written by another run; run again")
            else:
                ours.operation._is_committed = False

    def _take(self, name: str, body: bytes, *, is_new: bool) -> None:
        self._refuse_if_read_only()
        from huggingface_hub import CommitOperationAdd, HfApi

        operation = CommitOperationAdd(self._prefix + name, body)
        is_large = len(body) > _LARGE_BYTES
        if is_large:
            with explained("write to", self.where), without_remarks():
                HfApi().preupload_lfs_files(self.repository, [operation])
        digest, kept = hashlib.sha256(body).hexdigest(), None if is_large else body
        with self._lock:
            self._pending[name] = Pending(operation, kept, len(body), digest, is_new)

    def _listing(self) -> dict[str, Committed]:
        """Give the files of the commit that is looked at."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
        from huggingface_hub.hf_api import RepoFile

        with self._lock, explained("read", self.where):
            if self._head is None:
                try:
                    head = HfApi().repo_info(self.repository, revision="main").sha
                    tree = HfApi().list_repo_tree(self.repository, recursive=True, revision=head)
                    found = [one for one in tree if isinstance(one, RepoFile)]
                except (RepositoryNotFoundError, RevisionNotFoundError):
                    return {}
                self._files = {
                    one.path.removeprefix(self._prefix): Committed(
                        one.size, one.lfs.sha256 if one.lfs else one.blob_id
                    )
                    for one in found
                    if one.path.startswith(self._prefix)
                }
                self._head = head
            return self._files

    def _download(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        with explained("read", self.where):
            path = hf_hub_download(self.repository, self._prefix + name, revision=self._head)
        return Path(path)

    def _refuse_if_read_only(self) -> None:
        if self.read_only:
            raise StoreError(f"{self.where} is written by `spg-pipe push` alone")


def publish(objects: object, message: str) -> None:
    """Commit what was written to a hub's repository; other stores show it already."""
    if isinstance(objects, HubObjects):
        objects.commit(message)
