"""Files of a hub's repository: what is there, what is to be committed, and what the hub says."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spg_core.errors import StoreError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


@dataclass(frozen=True)
class Pending:
    """An object that is to be committed."""

    operation: "CommitOperationAdd"
    body: bytes | None
    """None once it is uploaded."""
    size_bytes: int
    sha256: str
    is_new: bool


@dataclass(frozen=True)
class Committed:
    """A file of the repository."""

    size_bytes: int
    digest: str
    """SHA-256 of a large file, git's SHA-1 of another."""


def git_sha1(body: bytes | None) -> str | None:
    """Give git's name of a file's bytes."""
    if body is None:
        return None
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


@contextmanager
def without_remarks() -> Iterator[None]:
    """Hold back the client's remark that tables belong into repositories of data sets."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data")
        yield


@contextmanager
def explained(verb: str, where: str) -> Iterator[None]:
    """Say in our words what the hub refused, or that it is not there. Raises: StoreError."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(
            f"cannot {verb} {where}: {said}; `hf auth login` names you to the hub"
        ) from error
