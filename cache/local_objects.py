"""A store in a folder: local disk or a shared file system with POSIX semantics.

Publishing is: write a temporary file in the target's folder, fsync it, link(2) it to its name,
unlink the temporary, fsync the folder. link(2) fails when the name exists, also between machines
on NFS, where an exclusive open or a rename would not do. Every OSError leaves as a StoreError.
"""

import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cache.local_files import fsync_folder, link_new, open_regular, written_beside
from cache.objects import (
    SMALL_OBJECT_BYTES,
    TEMPORARY_PREFIX,
    ObjectInfo,
    Part,
    check_name,
    is_name,
    is_temporary,
    refuse_larger,
    refuse_read_only,
    total_bytes,
    whole_range,
)
from spg_core.errors import CorruptStore, NotInStore, StoreError

_FULL = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "your quota is used up: remove what is yours, or have it raised,",
    errno.EFBIG: "no file may be so large here: see `ulimit -f`, or take another file system,",
}
_NO_OBJECT = (errno.EINVAL, errno.EISDIR, errno.ELOOP)
"""Something lies there that is no object, and will the next time."""
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_NOT_THERE = (FileNotFoundError, NotADirectoryError)
_log = logging.getLogger(__name__)


class LocalObjects:
    """The operations of `cache.objects.Objects` on a folder.

    Raises: StoreError where the name of the folder cannot be made absolute.
    """

    def __init__(self, root: Path, read_only: bool = False) -> None:
        try:
            # Whatever happens to the working folder later, the store stays the same.
            self.root = root.expanduser().absolute()
            self.where = str(root.expanduser())
        except (OSError, RuntimeError) as error:  # no working folder, or no such home
            raise StoreError(
                f"cannot tell where the store {root} is ({error}); give its path from /"
            ) from error
        self.read_only = read_only

    def get(self, name: str, max_bytes: int = SMALL_OBJECT_BYTES) -> bytes:
        """Return the whole object. Raises: NotInStore, StoreError; CorruptStore if too large."""
        with self._explained("read", name), open_regular(self._path(name)) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            refuse_larger(size_bytes, max_bytes, self._show(name))
            return file.read(size_bytes)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`. Raises: NotInStore, StoreError."""
        with self._explained("read", name), open_regular(self._path(name)) as file:
            file.seek(start)
            data = file.read(min(length, max(0, os.fstat(file.fileno()).st_size - start)))
        return whole_range(data, start, length, self._show(name))

    def put_new(
        self, name: str, parts: Sequence[Part], approve: Callable[[], object] | None = None
    ) -> bool:
        """Publish the joined parts, once written and approved; False when the name is taken."""
        refuse_read_only(self, name)
        path = self._path(name)
        with self._explained("write", name, total_bytes(parts)):
            published = not path.exists()
            if published:
                with written_beside(path, parts) as temporary:
                    if approve is not None:
                        approve()
                    published = link_new(temporary, path)
            # Also when it was there: who put it there may be gone before its name was durable.
            fsync_folder(path.parent)
        return published

    def replace(self, name: str, parts: Sequence[Part]) -> None:
        """Publish the joined parts in place of what is there; see `Objects`."""
        refuse_read_only(self, name)
        path = self._path(name)
        with self._explained("write", name, total_bytes(parts)):
            with written_beside(path, parts) as temporary, self._explained("replace", name):
                temporary.replace(path)
            fsync_folder(path.parent)

    def size(self, name: str) -> int | None:
        """Return the object's bytes, None when there is none."""
        try:
            with self._explained("read", name):
                status = self._path(name).stat()
        except NotInStore:
            return None
        return None if stat.S_ISDIR(status.st_mode) else status.st_size

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below folder `prefix` (all with ""), sorted by name."""
        return (info for info in self._files(prefix) if not is_temporary(info.name))

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in folder `prefix`, sorted."""
        folder = self._path(prefix) if prefix else self.root
        try:
            with self._explained("list", prefix):
                return sorted(entry.name for entry in os.scandir(folder) if _is_folder(entry))
        except NotInStore:
            return []

    def temporaries(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what dead or living writers have not published, below folder `prefix`."""
        return (info for info in self._files(prefix) if is_temporary(info.name))

    def delete(self, name: str) -> None:
        """Remove an object and the folders it leaves empty; a missing one is no error."""
        refuse_read_only(self, name)
        path = self._path(name)
        with self._explained("delete", name), contextlib.suppress(*_NOT_THERE):
            path.unlink()
        for folder in path.parents:
            if folder == self.root or self.root not in folder.parents:
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def local_path(self, name: str) -> Path:
        """Return the file that is the object."""
        return self._path(name)

    def is_folder(self) -> bool:
        """Tell whether the store's folder is there."""
        with self._explained("read", ""):
            return self.root.is_dir()

    def check_writable(self) -> None:
        """Prove that create-only writes work here. Raises: StoreError saying why not."""
        name = f"{TEMPORARY_PREFIX}probe-{secrets.token_hex(8)}"
        refuse_read_only(self, name)
        try:
            if not self.put_new(name, [b"probe"]) or self.put_new(name, [b"other"]):
                raise StoreError(f"{self.where} does not keep to create-only writes")
        finally:
            with contextlib.suppress(StoreError):  # swept after a day; what failed before counts
                self.delete(name)

    def free_bytes(self) -> int | None:
        """Return the free space of the file system, for this user; None if it does not say."""
        folder = self.root
        try:
            while not folder.exists():
                folder = folder.parent
            return shutil.disk_usage(folder).free
        except OSError:
            return None

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)

    def _show(self, name: str) -> str:
        return str(Path(self.where) / name)

    def _files(self, prefix: str) -> Iterator[ObjectInfo]:
        """List all files, leaving out with a warning what lies in folders one may not look into."""
        top = self._path(prefix) if prefix else self.root
        found: list[ObjectInfo] = []

        def refuse(error: OSError) -> None:
            # os.walk would take a folder it may not read for an empty one.
            if isinstance(error, _NOT_THERE):
                return
            if error.errno not in _FORBIDDEN or Path(error.filename or top) == top:
                raise self._explain(error, "list", prefix)
            _log.warning("left out: %s (%s)", error.filename, error.strerror)

        # Links to folders are not followed: nothing of ours makes them, and they can loop.
        for folder, _, file_names in os.walk(top, onerror=refuse):
            for file_name in file_names:
                info = self._info(Path(folder) / file_name, refuse)
                if info is not None:
                    found.append(info)
        return iter(sorted(found, key=lambda info: info.name))

    def _info(self, path: Path, refuse: Callable[[OSError], None]) -> ObjectInfo | None:
        """Describe a file; None for what is no object: a pipe, a broken link, a foreign name."""
        name = path.relative_to(self.root).as_posix()
        try:
            status = path.stat()
        except OSError as error:
            if error.errno != errno.ELOOP:
                refuse(error)
            return None
        if not stat.S_ISREG(status.st_mode) or not is_name(name):
            return None
        version = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}"
        return ObjectInfo(name, status.st_size, status.st_mtime, version)

    @contextmanager
    def _explained(self, verb: str, name: str, needed_bytes: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explain(error, verb, name, needed_bytes) from error

    def _explain(self, error: OSError, verb: str, name: str, needed_bytes: int = 0) -> StoreError:
        # a user knows of no probe
        shown = f"{self.where}, the store" if is_temporary(name) else self._show(name)
        if isinstance(error, _NOT_THERE) and verb in ("read", "list"):
            return NotInStore(f"{shown} is not in the store")
        if error.errno is not None and error.errno in _FULL:
            return StoreError(
                f"no room for {shown}: {needed_bytes} bytes needed, {self.free_bytes() or 0} bytes "
                f"free ({error.strerror}); {_FULL[error.errno]} and run again, what is done is kept"
            )
        if error.errno in _NO_LINKS and error.filename2 is not None and verb == "write":
            return StoreError(
                f"cannot {verb} {shown}: {error.strerror}; the file system must have hard links, "
                "which create-only writing needs"
            )
        if error.errno in _FORBIDDEN:
            own = "; give one of your own" if is_temporary(name) else ""
            return StoreError(f"no permission to {verb} {shown} ({error.strerror}){own}")
        kind = CorruptStore if error.errno in _NO_OBJECT else StoreError
        return kind(f"cannot {verb} {shown}: {error.strerror or error}")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a loop, or into a folder one may not look into
