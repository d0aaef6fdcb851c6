"""Freed memory stays with the process, so that the next step need not ask for it again.

The C library gives large blocks back to the system as soon as they are freed. A training step then
gets its arrays anew, and the system zeroes each page when it is first touched, which costs more
than many a pass over the array, most of all in a virtual machine. PyTorch keeps what it frees on
a GPU, and leaves the processor's to the C library.

What a process holds does not grow beyond its peak, as before; it stays there for longer.
"""

import ctypes
import sys

# `mallopt`'s names of its settings, from malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process keep freed blocks of up to 1 GiB; give whether the C library does so.

    For processes of our own. It is the GNU C library's; others (musl, macOS, Windows) are left as
    they are, and so are jemalloc and tcmalloc, which ignore it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, _KEPT_BYTES) == 1 for name in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
