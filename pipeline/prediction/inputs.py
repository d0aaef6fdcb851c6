"""Which images a user means: files, folders and globs, in the order typed, each once."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests.paths import IMAGE_SUFFIXES, walk_pictures
from manifests.problems import Problem
from spg_core.errors import DatasetError

HEATMAP, OVERLAY = ".heatmap.png", ".overlay.png"
"""Endings of the pictures that predict writes; folders and globs leave them out."""


@dataclass(frozen=True)
class Listed:
    """One image to judge, or something that was asked for and cannot be had."""

    path: str
    """As typed, or below the folder as typed."""
    error: str | None = None
    is_missing: bool = False
    """Whether what was typed names nothing that can be read, as by a typing error."""


def find_images(arguments: Sequence[str]) -> list[Listed]:
    """List what the arguments name; what is missing becomes an entry with an error.

    A file is taken whatever its ending. Of a folder, and of folders inside it, the files with an
    image's ending are taken. Anything else is a glob, in which `**` stands for folders.
    """
    found: dict[str, Listed] = {}
    for argument in arguments:
        for listed in _expand(argument):
            found.setdefault(full_path(listed.path), listed)
    return list(found.values())


def require_all(listed: Sequence[Listed]) -> None:
    """Refuse what was typed and names nothing. Raises: DatasetError."""
    missing = [one.error for one in listed if one.is_missing and one.error]
    if missing:
        more = f"; and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise DatasetError("; ".join(missing[:_NAMED]) + more)


_NAMED = 5


def full_path(path: str) -> str:
    """Give the path from the root, in its shortest form."""
    # links are not followed: pictures should lie where the user sees the images
    return os.path.normpath(Path(path).absolute())


def _expand(argument: str) -> Iterator[Listed]:
    path = Path(argument)
    try:
        is_there = path.exists()
    except OSError as error:
        yield Listed(argument, f"{argument}: cannot be read ({error.strerror or error})", True)
        return
    if path.is_dir():
        yield from _folder(path)
    elif path.is_file():
        yield Listed(argument)
    elif is_there:
        # reading a pipe or a device may never end
        yield Listed(argument, f"{argument}: not a regular file", True)
    elif not glob.has_magic(argument):
        yield Listed(argument, f"{argument}: no such file or folder", True)
    else:
        # not Path.glob, which refuses absolute patterns
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
        files = [
            match for match in matches if Path(match).is_file() and not is_picture_of_ours(match)
        ]
        if not files:
            yield Listed(argument, f"{argument}: no file matches", True)
        yield from map(Listed, files)


def _folder(folder: Path) -> Iterator[Listed]:
    problems: list[Problem] = []
    images = [path for path in walk_pictures(folder, problems) if not is_picture_of_ours(path)]
    for path in images:
        yield Listed(str(folder / path))
    for problem in problems:
        path = str(folder / problem.path)
        yield Listed(path, f"{path}: {problem.kind}, {problem.detail}")
    if not images and not problems:
        error = f"{folder}: no image in this folder ({' '.join(IMAGE_SUFFIXES)})"
        yield Listed(str(folder), error, True)


def is_picture_of_ours(path: str) -> bool:
    """Tell by its name whether a file is a picture that predict wrote."""
    return path.endswith((HEATMAP, OVERLAY))
