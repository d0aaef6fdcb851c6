"""Paths inside a dataset: which are fit for a manifest, and how folders are listed safely.

A path is a POSIX string relative to the dataset root. Folders are listed without ever leaving the
root: a link may point elsewhere inside it, not back at a folder above itself, and outside only
where the user asks for it. A snapshot in the cache of the Hugging Face hub consists of links into
the `blobs/` beside it, which belong to it and are read.
Names sort by code point, which is the byte order of their UTF-8, so every machine agrees.
"""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manifests.problems import Problem

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp")
"""Files with another ending are not listed. Compared in lower case: VisA writes `.JPG`."""

UNREAD_SUFFIXES: Final = (
    *(".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".tga", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".exr", ".dcm", ".dng", ".cr2", ".nef"),
)
"""Pictures all the same, which are not left out without a word."""

# Each pattern is plain enough for Python's `re` and for RE2, which pyarrow uses on whole columns.
PATH_RULES: Final = (
    (r"^$", "is empty"),
    (r"[\x00-\x1f\x7f-\x9f]", "holds a control character"),
    (r"\\", "holds a backslash"),
    (r"^/", "is absolute"),
    (r"^[A-Za-z]:", "starts with a drive letter"),
    (r"(^|/)\.\.(/|$)", "leaves the dataset root with '..'"),
    (r"(^|/)\.(/|$)|//|/$", "is not in its shortest form"),
)
"""What makes a path unfit for a manifest: (pattern, reason). Names may not hold a slash either."""

MAX_PATH_BYTES: Final = 4096

_NOT_OURS: Final = frozenset(
    {
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx"),
        *("thumbs.db", "desktop.ini"),
    }
)
"""What systems, network drives and archives put beside images, in lower case; not to be listed,
as are names that begin with a dot."""

NO_PICTURE: Final = "a folder of masks without one that is read; expected pictures, as PNG"


@dataclass(frozen=True)
class Folder:
    """What one folder holds, as sorted paths relative to the root; hidden names are left out."""

    folders: tuple[str, ...]
    images: tuple[str, ...]
    unread: tuple[str, ...] = ()
    """Pictures in formats that are not read."""
    notes: tuple[str, ...] = ()
    """Other files: notes, archives, annotations."""


def path_problem(path: str) -> str | None:
    """Say why a path is unfit for a manifest, or None if it is fit."""
    for pattern, reason in PATH_RULES:
        if re.search(pattern, path):
            return reason
    try:
        size_bytes = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not UTF-8"
    return f"is {size_bytes} bytes long" if size_bytes > MAX_PATH_BYTES else None


def name_problem(name: str) -> str | None:
    """Say why a category, defect or dataset name is unfit for a manifest, or None if it is fit."""
    return "holds a slash" if "/" in name else path_problem(name)


def list_folder(
    root: Path, folder: str, problems: list[Problem], *, follow_links: bool = False
) -> Folder:
    """List the folders and images directly in `folder`; what cannot be used becomes a problem."""
    folders: list[str] = []
    images: list[str] = []
    unread: list[str] = []
    notes: list[str] = []
    try:
        with os.scandir(root / folder) as scan:
            entries = [entry for entry in scan if not _is_not_ours(entry.name)]
    except OSError as error:
        problems.append(Problem("unreadable folder", folder or ".", error.strerror or str(error)))
        return Folder((), ())

    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        is_image = entry.name.lower().endswith(IMAGE_SUFFIXES)
        if entry.is_symlink() and not _link_is_fine(root, path, problems, follow_links):
            continue
        is_folder = entry.is_dir()
        if not is_folder and not (is_image and entry.is_file()):
            is_picture = entry.name.lower().endswith(UNREAD_SUFFIXES)
            (unread if is_picture else notes).append(path)
            continue  # notes, archives, sockets: not ours to judge
        # A folder's name may become a category or a defect, so it must stand alone as well.
        reason = path_problem(path) or (name_problem(entry.name) if is_folder else None)
        if reason is not None:
            problems.append(Problem("unusable name", path, f"the path {reason}"))
        elif is_folder:
            folders.append(path)
        else:
            images.append(path)
    return Folder(*(tuple(sorted(found)) for found in (folders, images, unread, notes)))


def _is_not_ours(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOT_OURS


def walk_pictures(root: Path, problems: list[Problem]) -> list[str]:
    """List the images in a folder and below it; pictures that are not read become problems, too."""
    listed = walk(root, "", problems)
    for path in sorted(path for inner in listed for path in inner.unread):
        problems.append(Problem("unread format", path, "save it as PNG or JPEG"))
    return sorted(image for inner in listed for image in inner.images)


def walk(
    root: Path, folder: str, problems: list[Problem], *, follow_links: bool = False
) -> list[Folder]:
    """List a folder and all below it."""
    return _walk(root, folder, problems, follow_links, ())


def _walk(
    root: Path, folder: str, problems: list[Problem], follow_links: bool, above: tuple[str, ...]
) -> list[Folder]:
    # Two links can point at each other's folders; only the chain of real folders shows that.
    real = os.path.realpath(root / folder)
    if real in above:
        problems.append(Problem("symlink loop", folder, "it leads back to a folder above it"))
        return []
    listed = list_folder(root, folder, problems, follow_links=follow_links)
    found = [listed]
    for inner in listed.folders:
        found += _walk(root, inner, problems, follow_links, (*above, real))
    return found


def _link_is_fine(root: Path, path: str, problems: list[Problem], follow_links: bool) -> bool:
    """Check one symbolic link met while listing."""
    try:
        (root / path).stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            problems.append(Problem("symlink loop", path, "the link leads back to itself"))
        else:
            problems.append(Problem("missing file", path, "a link to nothing"))
        return False
    target = os.path.realpath(root / path)
    if not (follow_links or belongs(target, root, os.path.realpath(root))):
        detail = "a link that points out of the root"
        problems.append(Problem("leaves the root", path, detail))
        return False
    folder = os.path.realpath((root / path).parent)
    if folder == target or folder.startswith(target + os.sep):
        problems.append(Problem("symlink loop", path, "it leads back to a folder above it"))
        return False
    return True


def belongs(real: str, root: Path, real_root: str) -> bool:
    """Tell whether a resolved path is part of a dataset.

    It lies below the root, or is a blob of the hub's cache in whose snapshot the root is.
    """
    if _is_inside(real, real_root):
        return True
    above = root.absolute().parents
    snapshots = next((folder for folder in above if folder.name == "snapshots"), None)
    blobs = None if snapshots is None else os.path.realpath(snapshots.parent / "blobs")
    return blobs == str(Path(real).parent)


def _is_inside(real: str, real_root: str) -> bool:
    """Compare two resolved paths."""
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)
