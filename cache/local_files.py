"""Files as a store needs them: opened only if regular, written durably, gone when not published."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cache.objects import TEMPORARY_PREFIX, Part, as_view

_ATTEMPTS = 100
_BYTES_A_FLUSH = 1 << 24


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, without waiting for the other end of anything else.

    Raises: OSError, with `strerror`, also for a pipe, a socket or a device.
    """
    # Opening a FIFO waits for a writer and reading a device may never end.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file but a pipe, socket or device")
    return file


@contextmanager
def written_beside(path: Path, parts: Sequence[Part]) -> Iterator[Path]:
    """Write the joined parts durably under a temporary name in the folder of `path`.

    What still has that name at the end is removed; if it cannot be, it is swept after a day.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        descriptor = _open_new(temporary)
        try:
            _write_durably(descriptor, parts)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def link_new(temporary: Path, path: Path) -> bool:
    """Give a written file its name; False when the name is another file's."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # Over NFS the answer to a link that was made can get lost: then the name is ours.
        try:
            return temporary.samefile(path)
        except FileNotFoundError:
            return False
    return True


def fsync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # taken away with all in it, so there is nothing left to make durable
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
                    # The kernel tells of a lost page once: no flush may end unread.
                    if flushing is not None:
                        flushing.result()
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
    while not os.path.lexists(folder):  # a broken link is left to the opening, which names it
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        fsync_folder(new.parent)


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
