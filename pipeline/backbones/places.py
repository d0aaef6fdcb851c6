"""Where on this machine a weights file was last seen, by its digest.

A hint in the user's own cache folder, which no store, id or other machine ever sees. It is believed
only as far as the file there has the digest.
"""

import os
from pathlib import Path
from typing import Final

from pipeline.backbones.digest import sha256_of_file
from pipeline.machine.memo import recall, remember
from spg_core.errors import BackboneError

_KIND: Final = "places"


def remember_place(digest: str, file: Path) -> None:
    """Note that a file with that SHA-256 is there."""
    remember(_KIND, digest, os.fsencode(file.absolute()))


def known_place(digest: str) -> Path | None:
    """Give a file with that SHA-256, None where none is remembered or it is another by now."""
    noted = recall(_KIND, digest)
    if not noted or b"\0" in noted:
        return None
    file = Path(os.fsdecode(noted))
    try:
        return file if file.is_file() and sha256_of_file(file) == digest else None
    except (OSError, BackboneError):
        return None
