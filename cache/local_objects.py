"""A store in a folder: local disk or a shared file system with POSIX semantics.

Publishing is: write a temporary file in the target's folder, fsync it, link(2) it to its name,
unlink the temporary, fsync the folder. link(2) fails when the name exists, also between machines
on NFS, where an exclusive open or a rename would not do.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cache.objects import (
    SMALL_OBJECT_BYTES,
    TEMPORARY_PREFIX,
    ObjectInfo,
    Part,
    as_view,
    check_name,
    is_temporary,
    total_bytes,
)
from spg_core.errors import NotInStore, StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ATTEMPTS = 100
_BYTES_A_FLUSH = 1 << 24
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class LocalObjects:
    """The operations of `cache.objects.Objects` on a folder."""

    def __init__(self, root: Path, read_only: bool = False) -> None:
        self.root = root.expanduser().absolute()
        self.where = str(root)
        self.read_only = read_only

    def get(self, name: str, max_bytes: int = SMALL_OBJECT_BYTES) -> bytes:
        """Return the whole object, at most `max_bytes`. Raises: NotInStore, StoreError."""
        try:
            with self._path(name).open("rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                if size_bytes > max_bytes:
                    raise StoreError(
                        f"{self._show(name)} has {size_bytes} bytes, at most {max_bytes} expected"
                    )
                return file.read()
        except OSError as error:
            raise self._explain(error, "read", name) from error

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`. Raises: NotInStore, StoreError."""
        try:
            with self._path(name).open("rb") as file:
                file.seek(start)
                data = file.read(min(length, max(0, os.fstat(file.fileno()).st_size - start)))
        except OSError as error:
            raise self._explain(error, "read", name) from error
        if len(data) != length:
            raise StoreError(f"{self._show(name)} ends before byte {start + length}")
        return data

    def put_new(
        self, name: str, parts: Sequence[Part], approve: Callable[[], object] | None = None
    ) -> bool:
        """Publish the joined parts, once written and approved; False when the name is taken."""
        self._refuse_if_read_only(name)
        path = self._path(name)
        if path.exists():
            return False
        try:
            temporary = self._write_temporary(path, parts)
            try:
                if approve is not None:
                    approve()
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _fsync_folder(path.parent)
        except OSError as error:
            raise self._explain(error, "write", name, total_bytes(parts)) from error
        return True

    def replace(self, name: str, parts: Sequence[Part]) -> None:
        """Publish the joined parts in place of what is there; never for a part of a cache."""
        self._refuse_if_read_only(name)
        path = self._path(name)
        try:
            temporary = self._write_temporary(path, parts)
            temporary.replace(path)
            _fsync_folder(path.parent)
        except OSError as error:
            raise self._explain(error, "write", name, total_bytes(parts)) from error

    def size(self, name: str) -> int | None:
        """Return the object's bytes, None when there is none."""
        try:
            return self._path(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explain(error, "read", name) from error

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below folder `prefix` (all with ""), sorted by name."""
        return (info for info in self._files(prefix) if not is_temporary(info.name))

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in folder `prefix`, sorted."""
        folder = self._path(prefix) if prefix else self.root
        try:
            return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._explain(error, "list", prefix) from error

    def temporaries(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what dead or living writers have not published, below folder `prefix`."""
        return (info for info in self._files(prefix) if is_temporary(info.name))

    def delete(self, name: str) -> None:
        """Remove an object and the folders it leaves empty; a missing one is no error."""
        self._refuse_if_read_only(name)
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._explain(error, "delete", name) from error
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

    def check_writable(self) -> None:
        """Prove that create-only writes work here. Raises: StoreError saying why not."""
        name = f"{TEMPORARY_PREFIX}probe-{secrets.token_hex(8)}"
        try:
            if not self.put_new(name, [b"probe"]) or self.put_new(name, [b"other"]):
                raise StoreError(f"{self.where} does not keep to create-only writes")
        finally:
            if not self.read_only and self._path(name).exists():
                self.delete(name)

    def free_bytes(self) -> int | None:
        """Return the free space of the file system, for this user."""
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)

    def _show(self, name: str) -> str:
        return str(Path(self.where) / name)

    def _refuse_if_read_only(self, name: str) -> None:
        if self.read_only:
            raise StoreError(f"{self.where} was opened read-only; {name} is not changed")

    def _write_temporary(self, path: Path, parts: Sequence[Part]) -> Path:
        temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        descriptor = _open_new(temporary)
        try:
            try:
                _write_durably(descriptor, parts)
            finally:
                os.close(descriptor)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _files(self, prefix: str) -> Iterator[ObjectInfo]:
        top = self._path(prefix) if prefix else self.root
        found: list[ObjectInfo] = []

        def refuse(error: OSError) -> None:
            # os.walk would take a folder it may not read for an empty one.
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise self._explain(error, "list", prefix)

        # Links to folders are not followed: nothing of ours makes them, and they can loop.
        for folder, _, file_names in os.walk(top, onerror=refuse):
            for file_name in file_names:
                path = Path(folder) / file_name
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                name = path.relative_to(self.root).as_posix()
                found.append(ObjectInfo(name, status.st_size, status.st_mtime))
        return iter(sorted(found, key=lambda info: info.name))

    def _explain(self, error: OSError, verb: str, name: str, needed_bytes: int = 0) -> StoreError:
        shown = self._show(name)
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return NotInStore(f"{shown} is not in the store")
        if error.errno in _FULL:
            return StoreError(
                f"no room for {shown}: {needed_bytes} bytes needed, {self.free_bytes()} bytes "
                f"free ({error.strerror}); free some space and run again, what is done is kept"
            )
        if error.errno in (errno.EACCES, errno.EROFS):
            if is_temporary(name):
                shown = f"to {self.where}, the store; give one of your own with --store"
            return StoreError(f"no permission to {verb} {shown} ({error.strerror})")
        if error.errno in _NO_LINKS:
            return StoreError(
                f"cannot {verb} {shown}: {error.strerror}; the file system must have hard links, "
                "which create-only writing needs"
            )
        return StoreError(f"cannot {verb} {shown}: {error.strerror or error}")


def _write_durably(descriptor: int, parts: Sequence[Part]) -> None:
    """Write all parts and wait until the disk has them, which it takes as they come.

    A plain write followed by fsync leaves the disk idle first and the processor idle afterwards.
    """
    flushing: Future[None] | None = None
    with ThreadPoolExecutor(1) as flusher:
        for part in parts:
            view = as_view(part)
            for start in range(0, len(view), _BYTES_A_FLUSH):
                _write_all(descriptor, view[start : start + _BYTES_A_FLUSH])
                if len(view) > _BYTES_A_FLUSH and (flushing is None or flushing.done()):
                    flushing = flusher.submit(os.fsync, descriptor)
        if flushing is not None:
            flushing.result()
    os.fsync(descriptor)


def _write_all(descriptor: int, view: memoryview) -> None:
    written = 0
    while written < len(view):
        written += os.write(descriptor, view[written:])


def _make_folders(folder: Path) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _fsync_folder(new.parent)


def _open_new(path: Path) -> int:
    for attempt in range(_ATTEMPTS):
        try:
            _make_folders(path.parent)
            # 0o666 less the umask: a team shares the store, so tempfile's 0o600 would be wrong.
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            # Somebody's `delete` took the empty folder away in between.
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _fsync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # taken away with all in it, so there is nothing left to make durable
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
