"""A disk that fails at a chosen system call: a shim under `os`, for processes that test runs.

Python's own files go through it, too: `_pyio` is the standard library's `io` in Python, and makes
the calls of `os` that are counted and spoilt here. Only paths below one folder count, so that the
interpreter and its libraries run undisturbed.

Faults:
    EIO, ENOSPC  the call fails once with this error
    EIO+         this call, and all of its kind from then on
    short        half of what was asked is read or written, and that is said
"""

import _pyio  # type: ignore[import-not-found]
import builtins
import errno
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

CALLS = {
    "open": ("EIO", "ENOSPC", "EIO+"),
    "read": ("EIO", "short", "EIO+"),
    "write": ("EIO", "ENOSPC", "short", "ENOSPC+"),
    "fsync": ("EIO", "ENOSPC", "EIO+"),
    "close": ("EIO",),
    "link": ("EIO", "ENOSPC", "EIO+"),
    "replace": ("EIO", "ENOSPC", "EIO+"),
    "rename": ("EIO", "ENOSPC", "EIO+"),
    "mkdir": ("EIO", "ENOSPC", "EIO+"),
    "unlink": ("EIO", "EIO+"),
    "scandir": ("EIO", "EIO+"),
    "stat": ("EIO", "EIO+"),
}
"""What is counted, and how it can fail."""


class Fault(NamedTuple):
    """The `position`-th call of a kind fails, counted from 1."""

    call: str
    position: int
    kind: str


def install(folder: Path, fault: Fault | None) -> Counter[str]:
    """Put the shim under this process for good; give the counter of calls below `folder`."""
    root = os.path.realpath(folder)
    counts: Counter[str] = Counter()
    for name in CALLS:
        setattr(os, name, _counted(name, getattr(os, name), root, counts, fault))
    builtins.open = io.open = _pyio.open
    return counts


def _counted(name: str, real: Any, root: str, counts: Counter[str], fault: Fault | None) -> Any:
    readlink = os.readlink  # the real ones, which are not counted
    closed_too_early = name == "close"

    def is_below(target: Any) -> bool:
        if isinstance(target, int):
            try:
                path = readlink(f"/proc/self/fd/{target}")
            except OSError:
                return False
        else:
            path = os.path.abspath(os.fsdecode(target))  # noqa: PTH100 - links count where they lie
        return path.startswith(f"{root}/")

    def call(target: Any = ".", *arguments: Any, **options: Any) -> Any:
        if not is_below(target):
            return real(target, *arguments, **options)
        counts[name] += 1
        if not _is_hit(fault, name, counts[name]):
            return real(target, *arguments, **options)
        assert fault is not None
        if fault.kind == "short":
            return real(target, _half(arguments[0]), *arguments[1:], **options)
        if closed_too_early:
            real(target, *arguments, **options)  # a descriptor is gone even when closing fails
        code = getattr(errno, fault.kind.rstrip("+"))
        named = [] if isinstance(target, int) else [os.fspath(target)]
        raise OSError(code, os.strerror(code), *named)

    return call


def _is_hit(fault: Fault | None, name: str, count: int) -> bool:
    if fault is None or fault.call != name:
        return False
    return count == fault.position or (fault.kind.endswith("+") and count > fault.position)


def _half(asked: Any) -> Any:
    """Ask for half as much; at least for one byte, since 0 would mean the end."""
    return max(1, asked // 2) if isinstance(asked, int) else asked[: max(1, len(asked) // 2)]
