"""The system's own errors, as a command ends by them: a line."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from spg_core.errors import SpgError

_OF_STREAMS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Errors of a file without a name: files of ours have one, so it is a stream."""


def explain(error: OSError) -> SpgError:
    """Turn an error of the system that nobody foresaw into a line that names the file."""
    if error.filename is not None:
        return SpgError(f"{os.fsdecode(error.filename)}: {error.strerror or error}")
    if error.errno not in _OF_STREAMS:
        return SpgError(error.strerror or str(error))
    # what is still held back would fail again, with a traceback, when the process ends
    with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return SpgError("standard output was closed before everything was printed")
    return SpgError(f"cannot write to standard output ({error.strerror})")
