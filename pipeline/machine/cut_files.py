"""Last words where a mapped file was cut under its reader, which ends a process without any.

Shards are mapped into memory. Where a file has become shorter, or its disk fails, touching a page
of it is a SIGBUS, which Python cannot turn into an exception: the instruction would be tried for
ever. The signal comes of that very instruction, a copy of bytes, and not at any moment; so its
handler may do what a function may, and does not return.
"""

import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_FAILED = 1
"""What the process exits with."""
_kept: list[object] = []
"""The handler, which the system calls as long as the process lives."""


def say_what_was_cut() -> None:
    """Have this process name a file that was cut, and end, when it touches what is gone."""
    import ctypes

    with suppress(AttributeError, OSError):  # another system: it ends as it always did
        handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_say)
        ctypes.CDLL(None).signal(signal.SIGBUS, handler)
        _kept.append(handler)


def _say(_number: int) -> None:
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{show_cursor}error: {_words()}\n".encode("utf-8", "backslashreplace"))
    os._exit(_FAILED)


def _words() -> str:
    cut = next(_cut_files(), None)
    what = (
        "a file that is mapped into memory cannot be read: its disk fails, or it was cut"
        if cut is None
        else f"{cut} was cut while it was read"
    )
    return (
        f"{what}; what is whole is kept. `spg-pipe cache verify` names what is damaged; read from "
        "a copy (`spg-pipe cache copy`) where others write into a store"
    )


def _cut_files() -> Iterator[str]:
    """Give the mapped files that are shorter than their maps."""
    with suppress(OSError):
        for line in _MAPS.read_text(errors="surrogateescape").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/"):
                start, end = (int(number, 16) for number in fields[0].split("-"))
                mapped = int(fields[2], 16) + end - start
                with suppress(OSError):  # deleted, which harms nobody who has it mapped
                    if Path(fields[5]).stat().st_size <= mapped - mmap.PAGESIZE:
                        yield fields[5]
