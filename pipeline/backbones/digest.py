"""The SHA-256 of a weights file, computed once and remembered.

What is remembered belongs to a file's place, inode, size and both of its times, the second of which
no ordinary program can set back; a file that was replaced or written to is read again.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.backbones.file_kind import check_weights_file
from pipeline.backbones.in_parts import files_of
from pipeline.machine.memo import recall, remember
from spg_core.errors import BackboneError

_KIND = "weights"


def sha256_of_file(path: Path) -> str:
    """Give the SHA-256 of a file's bytes as 64 hex digits; of weights in several, of theirs.

    For an index of several files it is the digest of their digests, whatever they are called.

    Raises:
        BackboneError: the file changes while it is read.
    """
    _, *parts = files_of(path)
    digests = sorted(_sha256(one) for one in parts or [path])
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _sha256(path: Path) -> str:
    facts = _file_state(path)
    name = hashlib.sha256(facts.encode()).hexdigest()
    known = recall(_KIND, name)
    if known is not None and len(known) == 64 and known.isalnum():
        return known.decode()
    with _unchanged([path]), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    remember(_KIND, name, digest.encode())
    return digest


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Hold a file to what it is: the tensors that were read and the digest are of the same bytes.

    Raises:
        BackboneError: there is no such file; or, at the end, it was replaced or written to.
    """
    check_weights_file(path)
    with _unchanged(files_of(path)):
        yield


@contextmanager
def _unchanged(files: Sequence[Path]) -> Iterator[None]:
    for one in files:
        check_weights_file(one)
    before = [_file_state(one) for one in files]
    yield
    for one, state in zip(files, before, strict=True):
        if _file_state(one) != state:
            raise BackboneError(f"{one} changes while it is read; wait until its download is done")


def _file_state(path: Path) -> str:
    """Describe which file stands at a path, and in what state, without reading it."""
    try:
        status = path.stat()
    except OSError as error:
        raise BackboneError(f"{path} is gone while it is read ({error.strerror})") from error
    return json.dumps(
        [
            str(path.absolute()), status.st_dev, status.st_ino, status.st_size,
            status.st_mtime_ns, status.st_ctime_ns,
        ]
    )  # fmt: skip
