"""Write the files a user asked for outside the store: whole or not at all, over nothing else.

    check_place(path)                # before the work
    with new_file(path) as temporary:
        picture.save(temporary)      # published under `path` when the block ends

A path that the user named may be written anew, by a new file under that name. A path that we chose
(a sidecar, a picture) replaces only what `is_ours` knows as an earlier one of the same kind.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.layout import RECORD
from pipeline.kinds import JSON
from spg_core.errors import StoreError

IsOurs = Callable[[Path], bool]


def check_place(path: Path, is_ours: IsOurs | None = None, *, make_folders: bool = False) -> None:
    """Refuse a place that cannot be written, before anything is computed for it.

    Args:
        path: of the file to come.
        is_ours: tells of a file that is there whether it may be replaced; None where the user
            named the file.
        make_folders: whether folders that are missing will be made.

    Raises: StoreError naming what is in the way.
    """
    try:
        if _is_there(path):
            _check_replaceable(path, is_ours)
        folder = path.parent
        while make_folders and not _is_there(folder):
            folder = folder.parent
        folder.stat()
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not folder.is_dir():
        raise StoreError(f"{path} cannot be written: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"{path} cannot be written: no permission to write to {folder}")


def _is_there(path: Path) -> bool:
    # not os.path.lexists, which takes a name that is too long for one that is free
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _check_replaceable(path: Path, is_ours: IsOurs | None) -> None:
    if not path.is_file():
        raise StoreError(f"{path} cannot be written: it is there and is no regular file")
    if not os.access(path, os.W_OK):
        raise StoreError(f"{path} cannot be written: it is there and read-only")
    if is_ours is None and (owner := _stored_in(path)) is not None:
        raise StoreError(f"{path} belongs to what is stored in {owner}; choose another place")
    if is_ours is not None and not is_ours(path):
        raise StoreError(
            f"{path} is there and was not written by this command, so it is not replaced; "
            "choose another name or folder, or move it away"
        )


def _stored_in(path: Path) -> Path | None:
    """Give the folder of a cache or an artifact that a file is a part of."""
    if path.suffix not in _STORED_SUFFIXES:
        return None
    folders = path.absolute().parents
    records = (RECORD, *JSON.values())
    return next((one for one in folders if any((one / name).is_file() for name in records)), None)


_STORED_SUFFIXES = (".parquet", ".json", ".jsonl", ".safetensors", ".png", ".html")


@contextmanager
def new_file(
    path: Path, is_ours: IsOurs | None = None, *, make_folders: bool = False
) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there gets the name at the end.

    When the block raises, nothing is left and what was at `path` stays.

    Raises: StoreError for a place as in `check_place`, or a disk's error.
    """
    # not the name itself with something added: that may be too long
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}{path.suffix}")
    try:
        if make_folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        check_place(path, is_ours)
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_file(path: Path, data: bytes, is_ours: IsOurs | None = None) -> None:
    """Write `data` to `path`. Raises: StoreError as `new_file`."""
    with new_file(path, is_ours) as temporary:
        temporary.write_bytes(data)


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write {path}: {error.strerror or error}")
