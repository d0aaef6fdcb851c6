"""Read foreign files: only regular ones, and never more than a bound, whatever a name leads to."""

import os
import stat
from pathlib import Path
from typing import Final

from manifests.problems import printable
from spg_core.errors import DatasetError

MAX_FILE_BYTES: Final = 512 << 20
"""Most bytes of one image, mask or list: the largest picture we decode has 358 MB uncompressed."""

STANDS_FOR: Final = {
    b"version https://git-lfs": "a git-lfs pointer, which stands for the file; run `git lfs pull`",
    b"<!doctype html": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
}
"""How a file begins, in lower case, that was had instead of the one that was meant."""


def read_bytes(path: Path, *, may_be_empty: bool = False) -> bytes:
    """Read a whole regular file.

    Raises:
        DatasetError: The file cannot be read, is empty, too large, or no regular file (a pipe or a
            device may have no end).
    """
    name = printable(str(path))
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                kind = "a pipe" if stat.S_ISFIFO(status.st_mode) else "a device or socket"
                raise DatasetError(f"{name}: {kind}; expected a regular file")
            # One byte more shows a file that grows, or lies about its size, without reading it all.
            data = file.read(MAX_FILE_BYTES + 1) if status.st_size <= MAX_FILE_BYTES else None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{name}: cannot be read ({reason})") from error
    if data is None or len(data) > MAX_FILE_BYTES:
        size_bytes = status.st_size if data is None else len(data)
        raise DatasetError(
            f"{name}: {size_bytes} bytes are more than the limit of {MAX_FILE_BYTES} for one file"
        )
    if not data and not may_be_empty:
        raise DatasetError(f"{name}: the file is empty (0 bytes)")
    return data


def _open_at_once(path: str, flags: int) -> int:
    # Opening a pipe would wait for a writer for ever; without blocking it opens, and is refused.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
