"""Which images a user means: files, folders and globs, in the order typed, each once."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from manifests.paths import IMAGE_SUFFIXES, walk_images
from manifests.problems import Problem

HEATMAP, OVERLAY = ".heatmap.png", ".overlay.png"
"""Endings of the pictures that predict writes; folders and globs leave them out."""
LONGEST_NAME = 255
"""Bytes of a file's name, in any file system of today."""


@dataclass(frozen=True)
class Listed:
    """One image to judge, or something that was asked for and cannot be had."""

    path: str
    """As typed, or below the folder as typed."""
    error: str | None = None


def find_images(arguments: Sequence[str]) -> list[Listed]:
    """List what the arguments name; what is missing becomes an entry with an error.

    A file is taken whatever its ending. Of a folder, and of folders inside it, the files with an
    image's ending are taken. Anything else is a glob, in which `**` stands for folders.
    """
    found: dict[str, Listed] = {}
    for argument in arguments:
        for listed in _expand(argument):
            found.setdefault(_full(listed.path), listed)
    return list(found.values())


def output_names(listed: Sequence[Listed]) -> list[str]:
    """Give each image a name of its own for its pictures: its path below their common folder."""
    folders = [str(Path(_full(one.path)).parent) for one in listed if one.error is None]
    common = os.path.commonpath(folders) if folders else "."
    return [os.path.relpath(_full(one.path), common) for one in listed]


def with_room_for_pictures(listed: Sequence[Listed]) -> list[Listed]:
    """Turn images into errors whose names leave no room for the endings of their pictures."""
    room = LONGEST_NAME - max(map(len, (HEATMAP, OVERLAY)))
    error = f"its name is too long for {HEATMAP} behind it, so no picture can be written; rename it"
    return [
        replace(one, error=f"{one.path}: {error}")
        if one.error is None and len(os.fsencode(Path(one.path).name)) > room
        else one
        for one in listed
    ]


def _full(path: str) -> str:
    # links are not followed: pictures should lie where the user sees the images
    return os.path.normpath(Path(path).absolute())


def _expand(argument: str) -> Iterator[Listed]:
    path = Path(argument)
    try:
        is_there = path.exists()
    except OSError as error:
        yield Listed(argument, f"{argument}: cannot be read ({error.strerror or error})")
        return
    if path.is_dir():
        yield from _folder(path)
    elif path.is_file():
        yield Listed(argument)
    elif is_there:
        # reading a pipe or a device may never end
        yield Listed(argument, f"{argument}: not a regular file")
    elif not glob.has_magic(argument):
        yield Listed(argument, f"{argument}: no such file or folder")
    else:
        # not Path.glob, which refuses absolute patterns
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
        files = [match for match in matches if Path(match).is_file() and not _ours(match)]
        if not files:
            yield Listed(argument, f"{argument}: no file matches")
        yield from map(Listed, files)


def _folder(folder: Path) -> Iterator[Listed]:
    problems: list[Problem] = []
    images = [path for path in walk_images(folder, "", problems) if not _ours(path)]
    for path in images:
        yield Listed(str(folder / path))
    for problem in problems:
        path = str(folder / problem.path)
        yield Listed(path, f"{path}: {problem.kind}, {problem.detail}")
    if not images and not problems:
        yield Listed(str(folder), f"{folder}: no image in this folder ({' '.join(IMAGE_SUFFIXES)})")


def _ours(path: str) -> bool:
    return path.endswith((HEATMAP, OVERLAY))
