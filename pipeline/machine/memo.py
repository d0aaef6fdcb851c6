"""Remember what an extraction found, so that asking again takes a second instead of minutes.

Checking a dataset decodes every image, and finding the key hashes them. Both are remembered in the
user's own cache folder under a fingerprint of what was asked: the listing (path, size and times of
every file), the options, the weights file and the library versions. Like make and git, this trusts
a file whose size and times are the same, until its bytes, which are hashed again when a token or
mask is made of them, show otherwise: then all is looked at anew.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from cache.key import canonical_json
from pipeline import __version__
from pipeline.machine.versions import version_of


def memo_folder() -> Path | None:
    """Give this user's folder of memos: `$XDG_CACHE_HOME/spg-pipe`, else `~/.cache/spg-pipe`.

    None for a user without a home, as in a container that runs under a number nobody named.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spg-pipe"
    except RuntimeError:
        return None


def fingerprint(facts: Mapping[str, object]) -> str:
    """Digest what was asked, with the versions of the libraries that would answer."""
    versions = {name: version_of(name) for name in ("timm", "open_clip_torch", "torch", "pillow")}
    text = canonical_json({**facts, "versions": versions, "spg": __version__})
    return hashlib.sha256(text).hexdigest()


def file_facts(path: Path | None) -> list[str | int]:
    """Give what tells whether a file changed, without reading it; empty for no file."""
    if path is None:
        return []
    try:
        status = path.stat()
    except OSError:
        return [str(path)]
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]


def recall(kind: str, name: str) -> bytes | None:
    """Give what was remembered under a fingerprint, None where nothing was."""
    folder = memo_folder()
    try:
        return None if folder is None else (folder / kind / name).read_bytes()
    except OSError:
        return None


def remember(kind: str, name: str, data: bytes) -> None:
    """Keep `data` under a fingerprint. A folder that cannot be written only costs time later."""
    folder = memo_folder()
    if folder is None:
        return
    path = folder / kind / name
    temporary = path.with_name(f"{name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
