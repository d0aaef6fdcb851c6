"""Paths that a list names: brought to their shortest form, and checked before they are opened."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Final

from manifests.paths import belongs, path_problem
from manifests.problems import Kind, Problem

NAMED: Final = "named in "
"""How the detail of a file begins that a list names and that is not there."""


def normal_path(path: str, root: Path) -> str:
    """Give a path from a list in its shortest form, relative to the root where it is below it.

    Lists hold `a//b`, `./a`, `a\\b`, and absolute paths that begin with the root.
    """
    parts = path.replace("\\", "/").split("/")
    slash = "/" if parts[0] == "" and len(parts) > 1 else ""
    path = slash + "/".join(part for part in parts if part not in ("", "."))
    absolute = slash or re.match("[A-Za-z]:", path)
    for resolve in (os.path.abspath, os.path.realpath) if absolute else ():
        start = resolve(root).replace("\\", "/").rstrip("/") + "/"
        if path.startswith(start):
            return path.removeprefix(start)
    return path


def listed_file_is_fine(
    root: Path,
    path: str,
    place: str,
    problems: list[Problem],
    real_folders: dict[str, str],
    *,
    follow_links: bool = False,
) -> bool:
    """Tell whether a path that a list names is a file inside the root; if not, add a problem.

    Args:
        root: The dataset root.
        path: What the list says, untrusted.
        place: Where the list says it ("split_csv/1cls.csv line 3").
        problems: Gets the reason when the answer is no.
        real_folders: Folders already resolved in this listing, filled here: a list names
            thousands of files in a few folders, and resolving each anew took 0.3 ms a file.
        follow_links: Whether links may lead out of the root.
    """
    reason = path_problem(path)
    if reason is not None:
        leaves = reason in ("is absolute", "leaves the dataset root with '..'")
        kind: Kind = "leaves the root" if leaves else "unusable name"
        problems.append(Problem(kind, path, f"{place}: the path {reason}"))
        return False
    folder = str(PurePosixPath(path).parent)
    for unresolved in ("", folder):
        if unresolved not in real_folders:
            real_folders[unresolved] = os.path.realpath(root / unresolved)
    file = Path(real_folders[folder], PurePosixPath(path).name)
    try:
        target = os.path.realpath(file) if file.is_symlink() else str(file)
        is_file = file.is_file()
    except OSError:  # a name longer than the file system allows
        target, is_file = str(file), False
    inside = follow_links or belongs(target, root, real_folders[""])
    if not inside:
        detail = f"{place}: a link on the way points out"
        problems.append(Problem("leaves the root", path, detail))
    elif not is_file:
        problems.append(Problem("missing file", path, f"{NAMED}{place}, not found"))
    return is_file and inside
